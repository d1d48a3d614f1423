"""Checks and measures this project on this machine's GPU, and writes one report: bench/gpu.md (`make gpu-check`).

The tests of tests/cuda (parity, one step of each phase and each training, every stage, the studio), then at full size
with drawn weights the seconds of a step and the peak memory of every profile at batch 1, 4 and 16, and the micro-batch
that a run would choose; then with the weights that are here the seconds of an image, `eval` and `quality` on 2 x 2
samples, what a hand at the studio waits for, and a step of each other method's training. A part that fails is reported
and the next one follows. `python bench/gpu.py steps studio` takes these parts alone.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import hypernst  # noqa: E402
from models.generators.interface import Generator  # noqa: E402
from models.parsing.portrait import PortraitParser  # noqa: E402
from pipeline import device, images, profile, weights  # noqa: E402
from pipeline.context import COLLECTIONS, Context  # noqa: E402
from pipeline.runner.run import run_stage  # noqa: E402
from stages.baselines.run import TRAININGS  # noqa: E402
from stages.baselines.training import Training  # noqa: E402
from stages.evaluate import comparison, quality  # noqa: E402
from stages.loaders import generator as generators  # noqa: E402
from stages.preprocess import chain, samples  # noqa: E402
from stages.train import memory  # noqa: E402
from stages.train.state import State, build, enter_phase  # noqa: E402
from stages.train.step import Step  # noqa: E402

PROFILES, BATCHES, STEPS = ("portable", "paper256", "paper1024"), (1, 4, 16), 3
REPORT = ROOT / "bench" / "gpu.md"


def tests() -> str:
    """The output of tests/cuda."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", "-p", "no:cacheprovider", "tests/cuda"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return f"```\n{done.stdout[-6000:].strip()}\n```"


def steps() -> str:
    """A table: seconds of a step with everything in it, and peak memory, by profile, precision and batch.

    A run takes the discriminators' penalties in every 16th of these steps only.
    """
    lines = ["| profile | precision | batch | s a step | GB at most | GB counted |", "|---|---|---|---|---|---|"]
    for name in PROFILES:
        for precision in ("float32", "bfloat16"):
            for batch in BATCHES:
                lines.append(f"| {name} | {precision} | {batch} | {_step(name, precision, batch)} |")
                print(lines[-1], file=sys.stderr, flush=True)  # large networks are built for a while
    chosen = ", ".join(f"{_micro_batch(name)} for {name}" for name in PROFILES[1:])
    return "\n".join([*lines, "", f"Micro-batches that a run chooses on this GPU: {chosen}."])


def _context(name: str, **changed: object) -> Context:
    """A profile that needs no discriminators' weights."""
    chosen = profile.load(name)
    changed |= {"image_discriminator": "", "patch_discriminator": ""}
    settings = dataclasses.replace(chosen.train, **changed)  # type: ignore[arg-type]
    return Context(dataclasses.replace(chosen, train=settings), device="cuda")


def _micro_batch(name: str) -> int:
    ctx = _context(name, micro_batch=0)
    net, state = _drawn(ctx)
    return memory.choose_micro_batch(ctx, state, net).profile.train.micro_batch


def _drawn(ctx: Context) -> tuple[Generator, State]:
    """Networks of the profile's sizes, drawn on the GPU: 354 million parameters take a CPU seconds each time."""
    with torch.device("cuda"):
        net = generators.blank(ctx)
        return net, build(ctx, net)


def _step(name: str, precision: str, batch: int) -> str:
    ctx = _context(name, precision=precision, batch=batch, micro_batch=batch)
    chosen, settings = ctx.profile, ctx.profile.train
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        net, state = _drawn(ctx)
        enter_phase(state, settings)
        step = Step(ctx, state, net, trained=False)
        data = memory._batch(settings, chosen.generator.size, net.num_ws)
        data = dataclasses.replace(data, **{n: getattr(data, n).cuda() for n in ("image", "latent", "region", "codes")})

        def whole() -> None:
            memory._whole_step(step, data)
            for optimiser in state.optimisers.values():
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)

        with device.tuned("cuda"):  # as `train` does
            seconds = _seconds(whole)
        peak = torch.cuda.max_memory_allocated() / 1e9
        return f"{seconds:.3f} | {peak:.1f} | {memory.step_bytes(ctx) / 1e9:.1f}"
    except torch.OutOfMemoryError:
        return "does not fit | |"


def _seconds(work: Callable[[], object], times: int = STEPS) -> float:
    """The median seconds of some calls, after one that does not count."""
    found = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return median(found[1:])


def results() -> str:
    """Seconds of an image, the table of an evaluation of 2 x 2 samples and their quality, with the portable weights."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        chosen = profile.load("portable")
        few = dataclasses.replace(chosen.eval, contents=2, styles=2)
        cache = base / "cache"
        places = (cache, cache / "samples" / "content", cache / "samples" / "style")
        ctx = Context(dataclasses.replace(chosen, eval=few), *places, run=base / "run", device="cuda")
        samples.run(ctx)
        ctx = dataclasses.replace(ctx, limit=2)
        for name in COLLECTIONS:
            for step in (step for stage in chain.CACHED for step in chain.steps(stage, name, ctx)):
                run_stage(step, name, ctx)
        with contextlib.redirect_stderr(io.StringIO()):
            comparison.run(ctx, everything=True)
        report = json.loads((comparison.folder(ctx) / "results.json").read_text())
        seconds = report["methods"]["hypernst"]["seconds_per_image"]
        table = (comparison.folder(ctx) / "table.md").read_text()
        return f"An image takes {seconds:.3f} s.\n\n{table}\n```\n{_quality(ctx, base / 'portraits')}```"


def _quality(ctx: Context, folder: Path) -> str:
    """The figures of `hypernst quality` on two contents and styles; the region maps to be found are those of a CPU."""
    chosen = {name: sorted(getattr(ctx, name).iterdir())[:2] for name in COLLECTIONS}
    for name, files in (chosen | {"nonportrait": chosen["style"], "seg": []}).items():
        (folder / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder / name)
    parser = PortraitParser.load(weights.tensors(ctx.profile.parser.weights))
    for i, file in enumerate(chosen["content"]):
        photo = images.encode(images.decode(file.read_bytes(), 256), ".jpg")
        (folder / "seg" / f"{i}.jpg").write_bytes(photo)
        regions = parser.parse(images.to_tensor(images.decode(photo)))[0].numpy()
        cv2.imwrite(str(folder / "seg" / f"{i}.png"), regions)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()):
        quality.run(dataclasses.replace(ctx, limit=None), portraits=folder)
    return said.getvalue()


def uses() -> str:
    """A table: seconds of what the studio does with a portrait that is read, with nothing kept from call to call."""
    studio = hypernst.load("portable", cache=None, run=ROOT / "runs" / "none", device="cuda", memory=0)
    blobs = [np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8) for i in range(2)]
    photo, painting = (cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC) for small in blobs)
    content, style = studio.read(photo, no_face="keep"), studio.read(painting, style=True, no_face="keep")
    rows = {"read a portrait": lambda: studio.read(photo, no_face="keep")}
    for title, options in {
        "stylise": {"refine": 0}, "stylise, 1024 px": {"refine": 0, "size": 1024},
        "stylise, aged": {"refine": 0, "edits": {"age": 2}}, "refine by 10 steps": {"refine": 10},
    }.items():  # fmt: skip
        rows[title] = partial(studio.stylize, content, style, **options)  # type: ignore[arg-type, assignment]
    return "\n".join(["| in the studio | s |", "|---|---|", *(f"| {t} | {_seconds(f):.3f} |" for t, f in rows.items())])


def baselines() -> str:
    """A table: seconds of a step and peak memory of each other method's training, at 256 px and its published batch."""
    lines = ["| training | batch | s a step | GB at most |", "|---|---|---|---|"]
    lines += [f"| {name} | {kind.BATCH} | {_training(kind)} |" for name, kind in TRAININGS.items()]
    return "\n".join(lines)


def _training(kind: type[Training]) -> str:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    training, numbers = kind(Context(profile.load("paper256"), device="cuda")), count()
    content, style = (torch.rand(kind.BATCH, 3, 256, 256, device="cuda") * 2 - 1 for _ in range(2))
    seconds = _seconds(lambda: training.step(content, style, next(numbers)), 4)
    return f"{seconds:.3f} | {torch.cuda.max_memory_allocated() / 1e9:.1f}"


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "tests": ("tests/cuda", tests),
    "steps": ("Steps", steps),
    "evaluation": ("Images and evaluation", results),
    "studio": ("The studio", uses),
    "baselines": ("Other methods", baselines),
}


def main() -> None:
    """Write the report; exit with 1 if there is no GPU, or a part failed."""
    if not torch.cuda.is_available():
        raise SystemExit("make gpu-check: PyTorch finds no GPU on this machine; `hypernst doctor` says more")
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such part; there are {', '.join(PARTS)}")
    device.resolve("cuda")
    gpu = torch.cuda.get_device_properties(0)
    head = f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    parts, failed = [f"# What `make gpu-check` found\n\n{head}"], False
    for title, measure in (PARTS[name] for name in chosen):
        print(f"gpu-check: {title}", file=sys.stderr, flush=True)
        try:
            text = measure()
        except Exception:  # one part must not hide the others
            text, failed = f"```\n{traceback.format_exc()}```", True
        failed |= " failed" in text
        parts.append(f"## {title}\n\n{text}")
        REPORT.write_text("\n\n".join(parts) + "\n")
    print(REPORT)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
