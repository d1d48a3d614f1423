"""Everything that runs on a GPU moves what it needs there, and waits for it no more often than it must."""

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.encoders.aladin import Aladin
from models.generators import mobilestylegan
from models.generators.mobilestylegan import MobileStyleGAN
from models.losses import region_patches
from models.metrics.lpips import LPIPS
from models.parsing.portrait import PortraitParser
from pipeline import device, images, profile
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training.loop import Loop
from stages.evaluate import parsing, retrieval
from stages.loaders import generator as generators
from stages.pretrain import output_head, parser
from stages.train import data, memory, precision
from stages.train import step as steps
from stages.train.state import build, enter_phase
from stages.train.step import Step
from tests.stages import fake_device
from tests.stages.fake_device import FakeDevice, Held
from tests.support import small_run


@pytest.fixture
def gpu() -> Iterator[FakeDevice]:
    with FakeDevice() as found:
        yield found


def photo(seed: int, side: int = 256) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)


def test_the_fake_device_refuses_what_a_gpu_refuses(gpu: FakeDevice) -> None:
    x = torch.ones(2, 3).to(fake_device.NAME)
    assert (
        isinstance(x, Held) and isinstance(x * 2 + torch.tensor(1.0), Held) and isinstance(x[torch.tensor([0])], Held)
    )
    with pytest.raises(RuntimeError, match="on cpu among tensors"):
        x + torch.ones(2, 3)
    assert not isinstance(x.cpu(), Held) and gpu.syncs["_to_copy"] == 1


def test_the_parser_is_measured_where_it_lies(tmp_path: Path, gpu: FakeDevice) -> None:
    (tmp_path / "a.jpg").write_bytes(images.encode(photo(0), ".jpg"))
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((256, 256), np.uint8))[1].tobytes())
    assert 0 <= parsing.measure(PortraitParser(64).eval().to(fake_device.NAME), tmp_path)[0] <= 1


def test_retrieval_is_measured_where_the_encoder_lies(tmp_path: Path, gpu: FakeDevice) -> None:
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(images.encode(photo(i)))
    found = retrieval.retrieval(Aladin(size=32).to(fake_device.NAME), sorted(tmp_path.iterdir()))
    assert all(0 <= share <= 1 for share in found)
    codes = torch.eye(4).to(fake_device.NAME)
    assert retrieval.top1(codes, codes) == 1 and 0 <= retrieval.same_group(codes, np.array(list("aabb"))) <= 1


def test_the_heads_faces_do_not_stay_on_the_gpu(gpu: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilestylegan, "WIDTHS", (32, 32, 32, 32, 256, 16, 64))
    net = MobileStyleGAN(1024).to(fake_device.NAME)
    pairs = [output_head.sample_pair(net, seed) for seed in range(2)]
    assert not any(isinstance(part, Held) for pair in pairs for part in pair)
    head = output_head._initialised(pairs, 0, fake_device.NAME)
    torch.nn.init.ones_(head.to_img.bias)  # the empty generator's images are grey
    rng = torch.Generator().manual_seed(0)
    assert isinstance(output_head._crop_loss(head, pairs, rng), Held) and output_head.evaluate(head, pairs[:1]) > -99


@pytest.mark.weights
@pytest.mark.parametrize(
    ("phase", "by_region"), [("reconstruct", False), ("stylize", False), ("stylize", True)], ids=str
)
def test_a_step_waits_for_the_gpu_a_few_times(tmp_path: Path, phase: str, by_region: bool, gpu: FakeDevice) -> None:
    """Once for the terms of each pass, for what decides whether they are finite, and for nothing in between.

    With deltas by region also for the region map of each pass, and whether it has unknown pixels in each iteration.
    """
    with small_run.installed():
        settings = {"losses_at": "each", "reconstruction_every": 1, "style": 1.0, "region_deltas": by_region}
        ctx = small_run.context(tmp_path, "gpu", heads="separable" if by_region else "channel", **settings)
        ctx = dataclasses.replace(ctx, device=fake_device.NAME)
        net = generators.generator(ctx).to(ctx.device)
        state = build(ctx, net)
        state.phase, state.step = phase, 1
        enter_phase(state, ctx.profile.train)
        step = Step(ctx, state, net)
        small_run.write_shards(ctx)
        content, style = (data.Samples(ctx.shards, name, "train") for name in ("content", "style"))
        pairs = next(data.pairs(ctx, content, style, 0, steps.ALONE))
        gpu.syncs.clear()
        terms = step(pairs)
    passes = len(pairs) * (1 if phase == "reconstruct" else 2)
    each = 2 + ctx.profile.train.refinement_iterations if by_region else 1
    assert terms and sum(gpu.syncs.values()) <= passes * each + 3, gpu.syncs


def test_patches_are_cut_at_once() -> None:
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    sample, rng = np.array([0, 1, 1]), np.random.default_rng(0)
    corner = rng.integers(0, 32, (3, 2, 2))
    boxes = np.concatenate([corner, corner + 32], 2)
    cut = region_patches.crops(x, sample, boxes)
    wanted = torch.stack(
        [
            torch.stack([x[i, :, y0:y1, x0:x1] for x0, y0, x1, y1 in group])
            for i, group in zip(sample, boxes, strict=True)
        ]
    )
    assert torch.equal(cut, wanted)
    weight = torch.randn(cut.shape)
    gradients = [torch.autograd.grad((patches * weight).sum(), x)[0] for patches in (cut, wanted)]
    torch.testing.assert_close(*gradients)
    seen = []
    with torch.profiler.profile() as record:
        region_patches.crops(x.detach(), sample, boxes)
    seen = [event.name for event in record.events() if event.name in ("aten::index", "aten::stack", "aten::slice")]
    assert seen.count("aten::index") == 1 and "aten::stack" not in seen


def test_memory_that_the_networks_take_already_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (2_000_000_000, 16_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 3_000_000_000)
    assert memory.available("cuda:0") == 5.0
    assert device.held() > 1e7 and memory.available("cpu") > device.memory()[1] / memory.GB


def test_auto_says_why_it_takes_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.resolve("auto") == "cpu" and capsys.readouterr().err == ""
    (tmp_path / "node").touch()
    monkeypatch.setattr(device, "GPU_NODES", (str(tmp_path / "node"),))
    assert device.resolve("auto") == "cpu"
    assert f"the CPU, although {tmp_path}/node shows a GPU: " in capsys.readouterr().err


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch, "empty", lambda *_, **given: taken.append(given["device"]))
    assert device.resolve("cuda") == "cuda:1" and taken == ["cuda:1", "cuda:1"]


def test_bfloat16_where_it_is_only_emulated_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert device.has_bfloat16("cpu") and not device.has_bfloat16("cuda:0")
    ctx = small_run.context(tmp_path, "old", precision="bfloat16")
    with pytest.raises(UserError, match=r'cuda does not compute in bfloat16; set train\.precision = "float32"'):
        Step(dataclasses.replace(ctx, device="cuda"), None, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r'set baselines\.precision = "float32"'):
        precision.autocast("cuda", "baselines", "bfloat16")


@pytest.mark.parametrize("there", [True, False])
def test_the_parsers_training_takes_bfloat16_only_where_it_is(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "has_bfloat16", lambda name: there)
    net, seen = torch.nn.Conv2d(3, 3, 1), []
    net.register_forward_hook(lambda *given: seen.append(given[2].dtype is torch.bfloat16))
    setup = parser.Setup(net, copy.deepcopy(net), torch.optim.SGD(net.parameters(), 0.1), [], 2)  # type: ignore[arg-type]
    black = np.zeros((1, 8, 8, 3), np.uint8)
    parser.train_step(setup, (black, black), 0, Loop("parser", Path(), 2, save=print))
    assert seen == [there]


def test_prefetched_batches_are_counted() -> None:
    ctx = Context(profile.load("paper256"))
    assert data.prefetched_bytes(ctx) == 2 * data.WORKERS * 2 * 8 * (4 * 256 * 256 + 4 * 18 * 512 + 4 * 4 * 256)


def test_the_labels_of_a_batch_need_no_gpu(gpu: FakeDevice) -> None:
    rows = {
        "image": torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        "latent": torch.zeros(2, 18, 512),
        "region": torch.ones(2, 8, 8, dtype=torch.uint8),
        "codes": torch.zeros(2, 4, 256),
    }
    batch = data.to_batch(rows, fake_device.NAME)
    assert isinstance(batch.image, Held) and batch.maps().sum() == 128 and not gpu.syncs


def test_losses_lie_where_their_images_do(gpu: FakeDevice) -> None:
    x = torch.rand(1, 3, 64, 64).to(fake_device.NAME)
    assert isinstance(LPIPS("alex").to(fake_device.NAME)(x, 1 - x), Held)
