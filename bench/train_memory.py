"""The memory that training needs, with its memory savings switched on in turn, for the paper's networks at full size.

Run: `make bench`, or `python bench/train_memory.py` (takes minutes). The bytes are the peak of all tensors in a whole
step: both passes, three refinement iterations, discriminators with their penalties, gradients, Adam's moments and the
EMA. They are in float32 and are counted on the meta device, see pipeline/training/peak_memory.py. For the portable
profile the table also shows what a real process held, and which part of a step it waited for data.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import profile  # noqa: E402
from pipeline.context import Context  # noqa: E402
from pipeline.training.loop import rows  # noqa: E402
from stages.train import memory as train_memory  # noqa: E402
from stages.train import run as train  # noqa: E402
from tests.support import small_run  # noqa: E402

BATCHES = (1, 2, 4, 8, 16)
SAVINGS = {  # memory savings, switched on one after the other
    "as it comes": {"checkpointing": False},
    "and recomputation": {"checkpointing": True},
    "and micro-batches of 4": {"checkpointing": True, "micro_batch": 4},
    "and of 1": {"checkpointing": True, "micro_batch": 1},
}
STEPS = 4


def changed(ctx: Context, batch: int, **settings: object) -> Context:
    """The context with another batch size, in one micro-batch unless `micro_batch` is given."""
    settings = {"batch": batch, "micro_batch": batch, "refinement_iterations": 3, "losses_at": "each"} | settings
    settings["micro_batch"] = min(batch, int(str(settings["micro_batch"])))
    return dataclasses.replace(
        ctx, profile=dataclasses.replace(ctx.profile, train=dataclasses.replace(ctx.profile.train, **settings))
    )  # type: ignore[arg-type]


def counted(name: str) -> None:
    """Print the table of a profile."""
    print(f"| {name}, GB at batch | " + " | ".join(map(str, BATCHES)) + " |\n|---" + "|---" * len(BATCHES) + "|")
    for title, settings in SAVINGS.items():
        cells = []
        for batch in BATCHES:
            ctx = changed(Context(profile.load(name)), batch, **settings)
            cells.append(f"{train_memory.step_bytes(ctx) / train_memory.GB:.1f}")
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    print()


def measured(batch: int, **settings: object) -> None:
    """Print a line of the memory and the time of a separate process that takes STEPS of the portable profile."""
    ctx = changed(Context(profile.load("portable")), batch, **settings)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        child_ctx = dataclasses.replace(ctx, cache=base / "cache", run=base / "run")
        small_run.write_shards(child_ctx, count=batch + 1, latent=0.3)
        running = subprocess.Popen(
            [sys.executable, __file__, place, str(batch), json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        _, status, usage = os.wait4(running.pid, 0)
        if status:
            raise SystemExit(f"training at batch {batch} ended with {status}")
        logged = rows(child_ctx.run)[1:]
    seconds = sum(row["seconds"] for row in logged) / len(logged)
    waiting = sum(row["wait"] for row in logged) / sum(row["seconds"] for row in logged)
    need = train_memory.step_bytes(ctx) / train_memory.GB
    mode = "recomputing" if settings.get("checkpointing") else "plain"
    print(
        f"| {batch}, {mode} | {need:.2f} | {usage.ru_maxrss * 1024 / 1e9:.2f} | {seconds:.1f} | {waiting:.2%} |",
        flush=True,
    )


def child(place: str, batch: str, settings: str) -> None:
    """Train for STEPS steps on the shards that the parent process wrote."""
    ctx = changed(Context(profile.load("portable")), int(batch), **json.loads(settings), validate_every=0)
    train.run(dataclasses.replace(ctx, cache=Path(place, "cache"), run=Path(place, "run")), steps=STEPS)


def main() -> None:
    """Print the tables."""
    for name in ("paper256", "paper1024"):
        counted(name)
    print("| portable, batch | GB counted | GB held | seconds per step | waiting for data |\n|---|---|---|---|---|")
    for batch in (1, 4):
        for checkpointing in (False, True):
            measured(batch, checkpointing=checkpointing)
    print("\nA process also holds its libraries and what the allocator keeps (0.7 GB or more).")


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
