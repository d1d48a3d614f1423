"""One step of training against the paper's equations, written out plainly and computed in float64."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.discriminators.patch import PatchDiscriminator
from models.losses import region_patches
from models.losses.objectives import Batch
from pipeline.context import Context
from stages.loaders import generator as generators
from stages.train.data import Pair
from stages.train.state import build, enter_phase
from stages.train.step import Step
from tests.support import small_run

pytestmark = pytest.mark.weights  # LPIPS


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    with small_run.installed():
        yield


def batch(seed: int, n: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    image = rng.random((n, 3, 8, 8), np.float32).repeat(32, 2).repeat(32, 3) * 2 - 1
    region = rng.integers(0, 3, (n, 4, 4)).astype(np.uint8).repeat(64, 1).repeat(64, 2)
    codes = rng.standard_normal((n, 4, 256)).astype(np.float32)
    codes /= np.linalg.norm(codes, axis=2, keepdims=True)
    latent = rng.standard_normal((n, 18, 512)).astype(np.float32)
    return Batch(*(torch.from_numpy(a) for a in (image, latent, region, codes)))


EVERYWHERE_OR_BY_REGION = pytest.mark.parametrize(
    ("wide", "region_deltas"), [(False, False), (True, False), (True, True)]
)


def trainer(base: Path, phase: str, *, wide: bool = False, **settings: object) -> tuple[Context, Step]:
    """A step with heads that are awake; `wide` has it all in float64."""
    ctx = small_run.context(base, "step", **{"batch": 1, "losses_at": "each", "refinement_iterations": 3, **settings})
    generator = generators.generator(ctx)
    state = build(ctx, generator)
    state.phase = phase
    torch.manual_seed(1)
    for head in state.hyper.heads:
        torch.nn.init.normal_(head.out.weight, 0, 0.02)
    state.step = 1  # so that neither a penalty nor a lazy pass is due
    enter_phase(state, ctx.profile.train)
    step = Step(ctx, state, generator)
    if wide:
        step.rows = None  # it renders in 32 bits
        for net in (*state.nets.values(), generator, step.reconstruction, step.stylization):
            net.double()
    return ctx, step


def gradients(net: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten().double() for p in net.parameters() if p.grad is not None])


def apart(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """Relative distance of their gradients."""
    return float((gradients(a) - gradients(b)).norm() / gradients(b).norm())


def double(x: Batch) -> Batch:
    return Batch(x.image.double(), x.latent.double(), x.region, x.codes.double())


def renderings(hyper: torch.nn.Module, generator: torch.nn.Module, c: Batch, codes: Tensor) -> Iterator[Tensor]:
    """Eqs. 1 and 2 with three iterations: theta + the sum of deltas so far, only the newest of which is learned."""
    y, total = generator(c.latent).clamp(-1, 1), None
    for _ in range(3):
        new = hyper(c.image, y.detach(), codes, c.region)
        total = new if total is None else [old.detach() + more for old, more in zip(total, new, strict=True)]
        rendered = generator(c.latent, total, hyper.region_weights(c.region))
        yield rendered
        y = rendered.clamp(-1, 1)


@EVERYWHERE_OR_BY_REGION
def test_reconstruction_is_equation_3_in_float64(tmp_path: Path, wide: bool, region_deltas: bool) -> None:
    ctx, step = trainer(tmp_path, "reconstruct", wide=wide, lambda1=1.5, region_deltas=region_deltas)
    state, content = step.state, batch(0)
    hyper, generator = copy.deepcopy(state.hyper).double(), copy.deepcopy(step.generator).double()
    lpips = copy.deepcopy(step.reconstruction.lpips).double()
    own = double(content) if wide else content
    terms = step._reconstruct(own, step.invert(own), np.random.default_rng(0), 1)
    own, last = double(content), {}
    for y in renderings(hyper, generator, own, own.codes):
        last = {"l2": F.mse_loss(y, own.image), "lpips": lpips(y, own.image).mean()}
        (1.5 * (last["l2"] + ctx.profile.train.lpips * last["lpips"])).backward()
    assert terms == pytest.approx({name: float(t.detach()) for name, t in last.items()}, rel=1e-5)
    assert apart(state.hyper, hyper) < (1e-9 if wide else 1e-4)


@EVERYWHERE_OR_BY_REGION
def test_stylisation_is_equations_4_to_6_in_float64(tmp_path: Path, wide: bool, region_deltas: bool) -> None:
    _, step = trainer(tmp_path, "stylize", wide=wide, lambda2=2.0, reconstruction_every=99, region_deltas=region_deltas)
    state, content, style = step.state, batch(1), batch(2)
    nets = [
        copy.deepcopy(net).double()
        for net in (state.hyper, step.generator, state.image_discriminator, state.patch_discriminator)
    ]
    hyper, generator, image_discriminator, patch_discriminator = nets
    c, s, rng, last = double(content), double(style), np.random.default_rng(7), {}
    pair = (c, s) if wide else (content, style)
    terms = step._stylize(*pair, step.invert(pair[0]), np.random.default_rng(7), 1)
    for y in renderings(hyper, generator, c, s.codes):
        groups = step.stylization.sample_patch_groups(content, style, rng)
        last = {
            "adversarial": F.softplus(-image_discriminator(y)).mean(),
            "patch": F.softplus(-_scores(patch_discriminator, s.image, y, groups)).mean(),
        }
        gradient = torch.autograd.grad(2.0 * (last["adversarial"] + last["patch"]), y, retain_graph=True)[0]
        y.backward(
            gradient, inputs=[p for p in hyper.parameters() if p.requires_grad]
        )  # the discriminators stay out of it
    groups = step.stylization.sample_patch_groups(content, style, rng)
    y = y.detach()
    last["discriminator"] = F.softplus(-image_discriminator(s.image)).mean() + F.softplus(image_discriminator(y)).mean()
    real = _scores(patch_discriminator, s.image, s.image, groups, real=True)
    last["patch_discriminator"] = (
        F.softplus(-real).mean() + F.softplus(_scores(patch_discriminator, s.image, y, groups)).mean()
    )
    (last["discriminator"] + last["patch_discriminator"]).backward()
    assert terms == pytest.approx({name: float(t.detach()) for name, t in last.items()}, rel=1e-5)
    for ours, theirs in zip(
        (state.hyper, state.image_discriminator, state.patch_discriminator), (hyper, *nets[2:]), strict=True
    ):
        assert apart(ours, theirs) < (1e-9 if wide else 1e-4)


def _scores(
    discriminator: PatchDiscriminator,
    style: Tensor,
    other: Tensor,
    groups: region_patches.PatchGroups,
    *,
    real: bool = False,
) -> Tensor:
    """Eq. 4's D_patch(crops(s), crops(other)): each patch beside the mean reference of its region."""
    found = []
    for i, reference, boxes in zip(groups.sample, groups.reference, groups.real if real else groups.fake, strict=True):
        mean = torch.stack([discriminator.features(_cut(style, i, box)) for box in reference]).mean(0)
        found += [discriminator.score(mean, discriminator.features(_cut(other, i, box))) for box in boxes]
    return torch.cat(found)


def _cut(image: Tensor, i: int, box: np.ndarray) -> Tensor:
    x0, y0, x1, y1 = box
    return image[i, :, y0:y1, x0:x1][None]


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    rows = [(batch(3), batch(4)), (batch(5), batch(6))]
    rows = [(double(content), double(style)) for content, style in rows]
    _, alone = trainer(tmp_path, "reconstruct", wide=True, batch=2, micro_batch=1)
    for number, (content, style) in enumerate(rows):
        alone._passes(Pair(number, content, style), np.random.default_rng(3), 2)
    _, whole = trainer(tmp_path, "reconstruct", wide=True, batch=2, micro_batch=2)
    init_distributed = [
        Batch(
            *(torch.cat([getattr(row[side], name) for row in rows]) for name in ("image", "latent", "region", "codes"))
        )
        for side in (0, 1)
    ]
    whole._passes(Pair(0, *init_distributed), np.random.default_rng(3), 1)
    assert apart(alone.state.hyper, whole.state.hyper) < 1e-9


@pytest.mark.parametrize("phase", ["reconstruct", "stylize"])
def test_recomputing_changes_no_gradient(tmp_path: Path, phase: str) -> None:
    found = []
    for checkpointing in (False, True):
        _, step = trainer(tmp_path, phase, checkpointing=checkpointing)
        step._passes(Pair(0, batch(8), batch(9)), np.random.default_rng(3), 1)
        found.append(gradients(step.state.hyper))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-5


def test_bfloat16_trains_nearly_the_same(tmp_path: Path) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        _, step = trainer(tmp_path, "reconstruct", precision=precision)
        step._passes(Pair(0, batch(8), batch(9)), np.random.default_rng(3), 1)
        found.append(gradients(step.state.hyper))
    assert 1e-6 < float((found[0] - found[1]).norm() / found[0].norm()) < 0.1
    assert float(F.cosine_similarity(*found, dim=0)) > 0.99


@pytest.mark.parametrize("iterations", [1, 2])
def test_one_image_at_a_time_gives_the_gradients_of_a_batch(tmp_path: Path, iterations: int) -> None:
    found = []
    for single in (False, True):
        settings = {"micro_batch": 1, "region_deltas": True, "lambda2": 0.0, "style": 1.0, "content": 1.0}
        _, step = trainer(tmp_path, "stylize", refinement_iterations=iterations, **settings)
        assert step.rows is not None
        if not single:
            step.rows = None
        step._passes(Pair(0, batch(8), batch(9)), np.random.default_rng(3), 1)
        found.append(gradients(step.state.hyper))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-3


@pytest.mark.parametrize("by_region", [True, False])
def test_the_mask_loss_can_be_switched_off(tmp_path: Path, by_region: bool) -> None:
    _, step = trainer(tmp_path, "stylize", mask_loss=by_region, patches=2)
    content, style = batch(1), batch(2)
    groups = step.stylization.sample_patch_groups(content, style, np.random.default_rng(0))
    assert groups.fake.shape[:2] == ((3, 2) if by_region else (1, 6))
    inside = [content.region[0, y0:y1, x0:x1].unique().tolist() for x0, y0, x1, y1 in groups.fake.reshape(-1, 4)]
    assert any(len(labels) > 1 for labels in inside) or by_region


@pytest.mark.parametrize("styles", [True, False])
def test_reconstruction_sees_styles_where_the_profile_says_so(tmp_path: Path, styles: bool) -> None:
    _, step = trainer(tmp_path, "reconstruct", refinement_iterations=1, reconstruct_styles=styles)
    content, style = batch(0), batch(1)
    seen = {step._passes(Pair(0, content, style), np.random.default_rng(seed), 1)["l2"] for seed in range(6)}
    own = step._reconstruct(content, step.invert(content), np.random.default_rng(0), 1)["l2"]
    assert own in seen and len(seen) == 1 + styles
