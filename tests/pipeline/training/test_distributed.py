"""Distributed training: two processes, connected over gloo, give the same result as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.training import checkpoint
from stages.train import run as train
from tests.support import small_run

ROOT = Path(train.__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from stages.train import run as train
from tests.support import small_run
small_run.install()
base, run, steps = sys.argv[1:]
ctx = small_run.context(Path(base), run, batch=4, micro_batch=1, discriminators_every=1, reconstruction_every=2)
train.run(ctx, shipped=False, steps=int(steps))
"""


def launch(base: Path, run: str, processes: int, steps: int) -> subprocess.CompletedProcess:
    """Train in `runs/<run>` with this many processes."""
    script = base / "train.py"
    script.write_text(SCRIPT)
    starter = [sys.executable]
    if processes > 1:
        starter += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*starter, str(script), str(base), run, str(steps)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.weights
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    small_run.write_shards(small_run.context(tmp_path, ""), count=5)
    alone = launch(tmp_path, "alone", 1, 4)
    assert alone.returncode == 0, alone.stderr
    for steps in (3, 4):  # stopped and resumed in between
        both = launch(tmp_path, "both", 2, steps)
        assert both.returncode == 0, both.stderr
    logs = [
        [json.loads(line) for line in (tmp_path / "runs" / run / "log.jsonl").read_text().splitlines()]
        for run in ("alone", "both")
    ]
    assert [row["step"] for row in logs[1]] == [1, 2, 3, 4]
    for one, two in zip(*logs, strict=True):
        terms = one.keys() - {"time", "wait", "seconds", "phase", "step"}
        assert len(terms) >= 2 and one.keys() == two.keys()
        assert {name: one[name] for name in terms} == pytest.approx(
            {name: two[name] for name in terms}, rel=1e-5, abs=1e-6
        )
    one, two = (checkpoint.load(tmp_path / "runs" / run / "checkpoint.safetensors")[0] for run in ("alone", "both"))
    assert one.keys() == two.keys()
    far = {name: float((one[name] - two[name]).abs().max()) for name in one if name.startswith("hyper.")}
    assert max(far.values()) < 1e-3, sorted(far, key=far.__getitem__)[-3:]  # Adam amplifies rounding
    assert torch.equal(one["hyper.content.project.weight"].isfinite().all(), torch.tensor(True))


@pytest.mark.weights
def test_processes_that_cannot_share_a_batch_are_reported(tmp_path: Path) -> None:
    small_run.write_shards(small_run.context(tmp_path, ""), count=5)
    result = launch(tmp_path, "three", 3, 1)
    assert result.returncode != 0 and "does not split evenly over 3 process(es)" in result.stderr
