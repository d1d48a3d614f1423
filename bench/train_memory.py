"""What training takes of memory as its savings are switched on in turn, for the paper's networks at full size.

Run: `make bench`, or `python bench/train_memory.py` (minutes). The bytes are those of all tensors alive at the worst
moment of a whole step (both passes, three refinement_iterations, discriminators with their penalties, gradients, Adam's
moments and the average), in float32, counted on the meta device without computing: see pipeline/peak.py. Beside the
portable profile's count stands what a process that takes such steps really held, and how much of a step it waited for
data.
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
SAVINGS = {  # what is switched on, one after the other
    "as it comes": {"checkpointing": False},
    "and recomputation": {"checkpointing": True},
    "and micro-batches of 4": {"checkpointing": True, "micro_batch": 4},
    "and of 1": {"checkpointing": True, "micro_batch": 1},
}
STEPS = 4


def changed(ctx: Context, batch: int, **settings: object) -> Context:
    """The profile with another batch, at once unless `micro_batch` says otherwise."""
    settings = {"batch": batch, "micro_batch": batch, "refinement_iterations": 3, "losses_at": "each"} | settings
    settings["micro_batch"] = min(batch, int(str(settings["micro_batch"])))
    return dataclasses.replace(
        ctx, profile=dataclasses.replace(ctx.profile, train=dataclasses.replace(ctx.profile.train, **settings))
    )  # type: ignore[arg-type]


def counted(name: str) -> None:
    """The table of a profile."""
    print(f"| {name}, GB at batch | " + " | ".join(map(str, BATCHES)) + " |\n|---" + "|---" * len(BATCHES) + "|")
    for title, settings in SAVINGS.items():
        cells = []
        for batch in BATCHES:
            ctx = changed(Context(profile.load(name)), batch, **settings)
            cells.append(f"{train_memory.step_bytes(ctx) / train_memory.GB:.1f}")
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    print()


def measured(batch: int, **settings: object) -> None:
    """A line of what a process of its own holds and takes for some steps of the portable profile."""
    ctx = changed(Context(profile.load("portable")), batch, **settings)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        own = dataclasses.replace(ctx, cache=base / "cache", run=base / "run")
        small_run.write_shards(own, count=batch + 1, latent=0.3)
        running = subprocess.Popen(
            [sys.executable, __file__, place, str(batch), json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        _, status, usage = os.wait4(running.pid, 0)
        if status:
            raise SystemExit(f"training at batch {batch} ended with {status}")
        taken = rows(own.run)[1:]
    seconds = sum(row["seconds"] for row in taken) / len(taken)
    waiting = sum(row["wait"] for row in taken) / sum(row["seconds"] for row in taken)
    need = train_memory.step_bytes(ctx) / train_memory.GB
    told = "recomputing" if settings.get("checkpointing") else "plain"
    print(
        f"| {batch}, {told} | {need:.2f} | {usage.ru_maxrss * 1024 / 1e9:.2f} | {seconds:.1f} | {waiting:.2%} |",
        flush=True,
    )


def child(place: str, batch: str, settings: str) -> None:
    """Train for STEPS on the shards that the parent wrote."""
    ctx = changed(Context(profile.load("portable")), int(batch), **json.loads(settings), validate_every=0)
    train.run(dataclasses.replace(ctx, cache=Path(place, "cache"), run=Path(place, "run")), steps=STEPS)


def main() -> None:
    """Print the tables."""
    for name in ("paper256", "paper1024"):
        counted(name)
    print("| portable, batch | GB counted | GB held | seconds a step | waiting for data |\n|---|---|---|---|---|")
    for batch in (1, 4):
        for checkpointing in (False, True):
            measured(batch, checkpointing=checkpointing)
    print("\nA process holds its libraries and what the allocator keeps besides (0.7 GB and more).")


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
