"""The paper's profiles at full size: every stage, both phases of training and an evaluation, on generated weights.

The networks are as large as the published ones and their files are laid out as those are; only the numbers in them are
drawn. Takes some minutes and up to 16 GB: run with `-m slow`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models import state_dicts
from models.encoders.e4e import Encoder4Editing
from models.generators.mobilestylegan import MobileStyleGAN
from models.generators.stylegan2 import StyleGAN2, layer_table
from models.hypernetworks.hyperstyle import HyperStyle, shares
from models.metrics.identity import Identity
from models.parsing.farl_network import FaRL
from pipeline import images, profile, weights
from pipeline.context import Context
from pipeline.shards.indexed import Samples
from pipeline.training.distributed import ALONE
from stages.apply.stylist import Stylist
from stages.portraits.portrait import from_sample
from stages.preprocess import samples
from stages.train import data

pytestmark = [pytest.mark.slow, pytest.mark.weights]
ROOT = Path(profile.__file__).parent.parent
NUM_WS = {256: 14, 1024: 18}


def drawn(net: nn.Module) -> dict[str, Tensor]:
    """Tensors for a module on the meta device, scaled so that signals neither die nor blow up."""
    rng, out = torch.Generator().manual_seed(0), {}
    for name, t in net.state_dict().items():
        last = name.rpartition(".")[2]
        if not t.is_floating_point():
            out[name] = torch.zeros(t.shape, dtype=t.dtype)
        elif last == "running_var" or (last == "weight" and t.ndim == 1):
            out[name] = torch.full(t.shape, 0.5)
        else:
            scale = 0.05 if t.ndim == 1 else (2 / t[0].numel()) ** 0.5
            out[name] = torch.randn(t.shape, generator=rng) * scale
    return out


def generator(size: int) -> dict[str, Tensor]:
    """A generator as training starts with: pictures within sight of [-1, 1]."""
    torch.manual_seed(0)
    state = StyleGAN2(size).state_dict()
    for name in [n for n in state if n.startswith("to_rgb") and n.endswith("conv.weight")]:
        state[name] = state[name] * 0.2
    return state | {"latent_avg": torch.zeros(512)}


def encoder(size: int) -> dict[str, Tensor]:
    """An e4e encoder's tensors."""
    return drawn(state_dicts.build(Encoder4Editing, NUM_WS[size])) | {"latent_avg": torch.zeros(NUM_WS[size], 512)}


def hyperstyle(size: int) -> dict[str, Tensor]:
    """HyperStyle for all convolutions of the table, with small deltas."""
    table = layer_table(size)
    tuned = [row.index for row in table if row.kind == "conv3x3"]
    state = drawn(state_dicts.build(HyperStyle, table, tuned))
    for name in [n for n in state if ".output.1." in n or n.endswith(("w1", "b1"))]:
        state[name] = state[name] * 0.02
    assert any(shares(row) for row in table)
    return state


def aladin() -> dict[str, Tensor]:
    """The VGG16 style encoder's tensors."""
    net, inputs = nn.Module(), 3
    with torch.device("meta"):
        for i, width in enumerate((64, 64, 128, 128, *[256] * 3, *[512] * 6)):
            net.add_module(f"enc_style:model:conv_{i}", nn.Conv2d(inputs, width, 3))
            inputs = width
        net.add_module("proj_head:fc1", nn.Linear(8448, 1024))
        net.add_module("proj_head:fc2", nn.Linear(1024, 256))
    return {name.replace(":", "."): t for name, t in drawn(net).items()}


def arcface() -> dict[str, Tensor]:
    """The identity loss's tensors."""
    return drawn(state_dicts.build(Identity))


def bring(folder: Path, size: int, chosen: profile.Profile) -> None:
    """Write generated weights of all that the profile names and no index has."""
    train = chosen.train
    names = [chosen.generator.weights, chosen.inverter.weights, train.weights, chosen.aladin.weights]
    names.append(train.identity_weights)
    makers: dict[str, Callable[[int], dict[str, Tensor]]] = {
        "stylegan2": generator,
        "e4e": encoder,
        "hyperstyle": hyperstyle,
        "aladin": lambda _: aladin(),
        "arcface": lambda _: arcface(),
    }
    for name in filter(None, names):
        kind = name.split("-")[0]
        if kind in makers:
            keep(folder / f"{name}.safetensors", lambda kind=kind: makers[kind](size))
    keep(folder / "farl-lapa.safetensors", lambda: drawn(state_dicts.build(FaRL, 11)))


def keep(place: Path, made: Callable[[], dict[str, Tensor]]) -> None:
    """Write a file unless it is there, whole or not at all."""
    if not place.exists():
        save_file(made(), place.with_suffix(".part"))
        place.with_suffix(".part").rename(place)


def portraits(folder: Path, places: Sequence[str] = ("content/anna", "content/ben", "style/carl")) -> None:
    """Contents and styles, with faces that a detector finds."""
    net = MobileStyleGAN.load(weights.tensors("mobilestylegan"))
    mean = net.mean_latent(1000)
    for i, place in enumerate(places):
        with torch.no_grad():
            w = net.map(torch.randn(1, 512, generator=torch.Generator().manual_seed(i)))
            face = images.to_arrays(nn.functional.avg_pool2d(net(mean + 0.6 * (w - mean)), 2))[0]
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.png").write_bytes(images.encode(samples.with_margin(face)))


def short(base: Path, size: int, steps: int) -> Path:
    """The profile with few steps of one sample, and its weights in `base`/weights.

    Rates rise as slowly as at the start of a real run: at the full rate the third step's images are in the hundreds.
    """
    path = base / "short.toml"
    path.write_text(
        f'extends = "paper{size}"\nname = "short"\n[train]\nreconstruction_steps = {steps}\nwarm_up = {10 * steps}\n'
        f"stylization_steps = {steps}\ndiscriminators_first = 1\nbatch = 1\nmicro_batch = 1\nvalidate_every = 0\n"
        "checkpointing = false\n"
        "[shards]\ntest_fraction = 0.0\n"
    )
    (base / "weights").mkdir(exist_ok=True)
    bring(base / "weights", size, profile.load(path))
    return path


def run_stages(base: Path, path: Path, stages: Sequence[str]) -> None:
    """Run each stage in a process of its own; print its time and memory."""
    words = [
        f"--profile={path}",
        f"--cache={base}/cache",
        f"--run={base}/run",
        f"--content={base}/content",
        f"--style={base}/style",
        "--device=cpu",
    ]
    environment = os.environ | {"HYPERNST_WEIGHTS": str(base / "weights")}
    for stage in stages:
        start, said = time.monotonic(), base / f"{stage.split()[0]}.log"
        with said.open("w") as out:
            running = subprocess.Popen(
                [sys.executable, "-m", "stages.cli.main", *stage.split(), *words],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(running.pid, 0)
        seconds, peak = time.monotonic() - start, usage.ru_maxrss / 1e6
        print(f"{path.stem} {stage}: {seconds:.0f} s, of them {usage.ru_utime:.0f} s computing; peak {peak:.1f} GB")
        assert status == 0, said.read_text()


PREPARED = ("align", "latents", "masks", "aladin-codes", "shards")


@pytest.mark.parametrize("size", [256, 1024])
def test_every_stage_runs_at_full_size(size: int, tmp_path: Path) -> None:
    path = short(tmp_path, size, 3)
    portraits(tmp_path)
    run_stages(tmp_path, path, (*PREPARED, "train", "eval --all"))
    with h5py.File(tmp_path / "cache" / "content" / "latents.h5") as file:
        assert file["latent"].shape == (2, NUM_WS[size], 512)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in log] == ["reconstruct"] * 3 + ["stylize"] * 3
    assert {"l2", "lpips"} <= log[0].keys() and {"adversarial", "discriminator", "l2"} <= log[-1].keys()
    results = json.loads(next((tmp_path / "eval").rglob("results.json")).read_text())["methods"]["hypernst"]
    assert results["pairs"] == 2 and all(value == value for value in results.values())


def by_image(
    ctx: Context, contents: Samples, styles: Samples, losses: Sequence[float]
) -> dict[tuple[bytes, bool], list[float]]:
    """The losses of reconstruction's steps by the image that each drew, and whether it was mirrored.

    Images differ more than thirty steps of one image change, so each is compared with itself. The numbers are the
    trainer's.
    """
    found: dict[tuple[bytes, bool], list[float]] = {}
    seed, pairs = ctx.profile.seed, data.pairs(ctx, contents, styles, 0, ALONE)
    for step, loss in enumerate(losses):
        pair = next(pairs)[0]
        style = np.random.default_rng([seed, step, 0]).random() < 0.5
        mirrored = not style and np.random.default_rng([seed, step, 0, 2]).random() < 0.5
        latent = (pair.style if style else pair.content).latent
        found.setdefault((latent.numpy().tobytes(), mirrored), []).append(loss)
    return found


@pytest.mark.parametrize("size", [256, 1024])
def test_thirty_steps_of_each_phase_learn(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On eight portraits of drawn weights: the loss of an image falls, and a swap of styles changes the picture.

    Takes an hour or two. In a folder that HYPERNST_PAPER_RUN names it goes on where it was stopped.
    """
    base, steps = Path(os.environ.get("HYPERNST_PAPER_RUN", tmp_path)) / str(size), 30
    base.mkdir(parents=True, exist_ok=True)
    path = short(base, size, steps)
    portraits(base, [f"{name}/{i}" for i in range(4) for name in ("content", "style")])
    run_stages(base, path, (*PREPARED, "train"))
    rows = [json.loads(line) for line in (base / "run" / "log.jsonl").read_text().splitlines()]
    monkeypatch.setenv("HYPERNST_WEIGHTS", str(base / "weights"))
    ctx = Context(profile.load(path), cache=base / "cache", run=base / "run")
    contents, styles = (Samples(ctx.shards, name, "train") for name in ("content", "style"))
    losses = by_image(ctx, contents, styles, [row["l2"] + 0.8 * row["lpips"] for row in rows[:steps]])
    again = [found for found in losses.values() if len(found) > 1]
    first, last = (sum(found[i] for found in again) / len(again) for i in (0, -1))
    content, *others = contents[0], styles[0], styles[1]
    stylist = Stylist(ctx)
    one, two = (stylist.render(from_sample(content), from_sample(other).target).astype(float) for other in others)
    print(
        f"paper{size}: {len(again)} losses from {first:.3f} to {last:.3f}, none above {max(map(max, losses.values()))}"
    )
    print(f"two styles differ by {np.abs(one - two).mean():.2f} of 255")
    assert last < first and np.abs(one - two).mean() > 0.2
