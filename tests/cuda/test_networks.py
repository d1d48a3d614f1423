"""On a GPU: networks give what they give on a CPU, in float32 and nearly so in bfloat16; steps of every kind run."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.generators.stylegan2 import StyleGAN2
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from models.losses.region_style import RegionStyleLoss
from pipeline import device, profile
from pipeline.context import Context
from pipeline.training import checkpoint
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.train import memory
from stages.train import run as train
from stages.train.state import build, enter_phase
from stages.train.step import Step
from tests.models.losses.test_narrow_region_style import trunk
from tests.stages.train.test_step import batch
from tests.support import small_run

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.weights,
    pytest.mark.slow,
]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    device.resolve("cuda")
    yield
    torch.use_deterministic_algorithms(False)


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a.float().cpu().clamp(-1, 1) - b.cpu().clamp(-1, 1)).square().mean()))


@pytest.mark.parametrize("name", ["portable", "stylegan2"])
@torch.no_grad()
def test_generators(name: str) -> None:
    torch.manual_seed(0)
    net = generators.generator(Context(profile.load("portable"))) if name == "portable" else StyleGAN2(256)
    w = net.map(torch.randn(2, 512))
    deltas = [0.001 * torch.randn(2, *row.shape[:2]) for row in net.layer_table()]
    wanted = net(w, deltas)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = psnr(net(w, deltas), wanted)  # a CPU's own bfloat16: 57; with drawn weights, in harsh images, 48
    net, w, deltas = net.cuda(), w.cuda(), [d.cuda() for d in deltas]
    assert psnr(net(w, deltas), wanted) > 80
    with torch.autocast("cuda", torch.bfloat16):
        assert psnr(net(w, deltas), wanted) > min(50, narrow - 1)


@torch.no_grad()
def test_the_shipped_hypernetwork() -> None:
    ctx = Context(profile.load("portable"), run=Path("none"))
    net = generators.generator(ctx)
    hyper, content = hypernetworks.trained_hypernetwork(ctx, net.layer_table()), batch(0)
    wanted = hyper(content.image, content.image, content.codes, content.region)
    moved = (part.cuda() for part in (content.image, content.image, content.codes, content.region))
    for a, b in zip(hyper.cuda()(*moved), wanted, strict=True):
        assert float((a.cpu() - b).abs().max()) < 1e-3 * float(b.abs().max())


def test_region_moments_are_safe_in_tf32() -> None:
    term, content = RegionStyleLoss(trunk()), batch(0)
    wanted = term.targets(content.image, content.region)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        found = term.cuda().targets(content.image.cuda(), content.region.cuda())
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for ours, theirs in zip(found, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=0.02, atol=0.02 * float(b.abs().mean()))


@pytest.mark.parametrize("phase", ["reconstruct", "stylize"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", ["separable", "hyperstyle"])
def test_a_step_is_that_of_the_cpu(tmp_path: Path, heads: str, precision: str, phase: str) -> None:
    gradients = []
    with small_run.installed():
        for name in ("cpu", "cuda"):
            ctx = small_run.context(tmp_path, "step", heads=heads, style=1.0, precision=precision, batch=1)
            ctx = dataclasses.replace(ctx, device=name)
            net = (small_run.stylegan2 if heads == "hyperstyle" else small_run.generator)(ctx)
            torch.manual_seed(0)
            state = build(ctx, net)
            state.phase, state.step = phase, 1
            enter_phase(state, ctx.profile.train)
            step = Step(ctx, state, net)
            data = batch(0)
            moved = dataclasses.replace(data, **{n: getattr(data, n).to(name) for n in vars(data) if n != "labels"})
            memory._whole_step(step, moved)
            parameters = (p for p in state.hyper.parameters() if p.grad is not None)
            gradients.append(torch.cat([p.grad.flatten().float().cpu() for p in parameters]))  # type: ignore[union-attr]
    assert float(torch.cosine_similarity(*gradients, dim=0)) > (0.999 if precision == "float32" else 0.98)


def test_deterministic_training_repeats_to_the_bit(tmp_path: Path) -> None:
    with small_run.installed():
        saved = []
        for run in ("one", "two"):
            ctx = dataclasses.replace(small_run.context(tmp_path, run, style=1.0), device="cuda")
            if run == "one":
                small_run.write_shards(ctx)
            train.run(ctx, shipped=False, deterministic=True)
            saved.append(checkpoint.load(ctx.run / "checkpoint.safetensors")[0])
    assert all(torch.equal(t, saved[1][name]) for name, t in saved[0].items())


def test_the_trunk_in_hyperstyles_form_is_measured_on_the_gpu() -> None:
    net = RegionHyperStyle(StyleGAN2(16).layer_table(), project=True).cuda()
    net.measure(torch.rand(4, 6, 256, 256).cuda().split(2))
    assert net.net.bn1.running_mean.is_cuda and bool(net.net.bn1.running_mean.any())
