"""Checks and measures this project on this machine's GPU, and writes one report: bench/gpu.md (`make gpu-check`).

The tests of tests/cuda (parity, one step of each phase and each training, every stage), then at full size with drawn
weights the seconds of a step and the peak memory of every profile at batch 1, 4 and 16, then with the weights that are
here the seconds of an image and an evaluation of 2 x 2 samples. A part that fails is reported and the next one follows.
"""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from pipeline import device, profile  # noqa: E402
from pipeline.context import COLLECTIONS, Context  # noqa: E402
from pipeline.runner.run import run_stage  # noqa: E402
from stages.evaluate import comparison  # noqa: E402
from stages.loaders import generator as generators  # noqa: E402
from stages.preprocess import chain, samples  # noqa: E402
from stages.train import memory  # noqa: E402
from stages.train.state import build, enter_phase  # noqa: E402
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
    """A table: seconds of a step with everything in it, and peak memory, by profile, precision and batch."""
    lines = ["| profile | precision | batch | s a step | GB at most | GB counted |", "|---|---|---|---|---|---|"]
    for name in PROFILES:
        for precision in ("float32", "bfloat16"):
            for batch in BATCHES:
                lines.append(f"| {name} | {precision} | {batch} | {_step(name, precision, batch)} |")
    return "\n".join(lines)


def _step(name: str, precision: str, batch: int) -> str:
    chosen = profile.load(name)
    changed = {"precision": precision, "batch": batch, "micro_batch": batch, "image_discriminator": ""}
    settings = dataclasses.replace(chosen.train, **changed, patch_discriminator="")  # type: ignore[arg-type]
    ctx = Context(dataclasses.replace(chosen, train=settings), device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        net = generators.blank(ctx).cuda()  # type: ignore[attr-defined]
        state = build(ctx, net)
        enter_phase(state, settings)
        step = Step(ctx, state, net, trained=False)
        data = memory._batch(settings, chosen.generator.size, net.num_ws)
        data = dataclasses.replace(data, **{n: getattr(data, n).cuda() for n in ("image", "latent", "region", "codes")})
        seconds = []
        for _ in range(STEPS + 1):
            torch.cuda.synchronize()
            start = time.perf_counter()
            memory._whole_step(step, data)
            for optimiser in state.optimisers.values():
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() / 1e9
        return f"{median(seconds[1:]):.3f} | {peak:.1f} | {memory.step_bytes(ctx) / 1e9:.1f}"
    except torch.OutOfMemoryError:
        return "does not fit | |"


def results() -> str:
    """Seconds of an image, and the table of an evaluation of 2 x 2 samples, with the portable weights."""
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
        return f"An image takes {seconds:.3f} s.\n\n{(comparison.folder(ctx) / 'table.md').read_text()}"


def main() -> None:
    """Write the report; exit with 1 if there is no GPU, or a part failed."""
    if not torch.cuda.is_available():
        raise SystemExit("make gpu-check: PyTorch finds no GPU on this machine; `hypernst doctor` says more")
    device.resolve("cuda")
    gpu = torch.cuda.get_device_properties(0)
    head = f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    parts, failed = [f"# What `make gpu-check` found\n\n{head}"], False
    measures: dict[str, Callable[[], str]] = {"tests/cuda": tests, "Steps": steps, "Images and evaluation": results}
    for title, measure in measures.items():
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
