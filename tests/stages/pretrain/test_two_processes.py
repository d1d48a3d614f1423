"""The smaller trainings under torchrun: two processes come to the losses that one has, and write one result."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.backbones import irse
from models.encoders import e4e
from stages.loaders import generator as generators
from stages.pretrain import e4e as train_e4e
from stages.pretrain import generator as finetune_generator
from stages.pretrain import inverter
from tests.support import pretrainings

pytestmark = [pytest.mark.weights, pytest.mark.slow]  # three processes that start torch
STEPS = 3


def everything(base: Path, run: str, *ports: int) -> None:
    """A few steps of both trainings of the StyleGAN2 kind, as each process calls it.

    They meet at a port a training: who is done first would else find the other still at the former one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(irse, "UNITS", ((16, 3), (16, 4), (16, 14), (16, 3)))
        patch.setattr(e4e, "WIDTH", 16)
        for stage in (finetune_generator, train_e4e):
            patch.setattr(stage, "PENALTY_EVERY", 2)
            patch.setattr(stage, "WARM_UP", 100)
        ctx = pretrainings.stylegan2_context(base, run, patch)
        trainings = ((finetune_generator.run, {"stay": 1.0}), (inverter.run, {"unlock": 1}))
        for number, (train, options) in enumerate(trainings):
            if ports:
                patch.setenv("MASTER_PORT", str(ports[number]))
            train(ctx, data=base / "data", steps=STEPS, batch=4, **options)  # type: ignore[arg-type]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def test_two_processes_are_one(tmp_path: Path) -> None:
    for i, name in enumerate(("content", "style")):
        pretrainings.write_pictures(tmp_path / "data" / name, 3, i)
    everything(tmp_path, "one")
    first, second = free_ports(2)
    code = (
        "from pathlib import Path; from tests.stages.pretrain import test_two_processes as t; "
        f"t.everything(Path({str(tmp_path)!r}), 'two', {first}, {second})"
    )
    root, meeting = Path(generators.__file__).parents[2], {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | meeting | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    try:
        told = [process.communicate(timeout=300)[0].decode() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], told
    assert "for the profile" in told[0] and "for the profile" not in told[1]
    for name in ("finetune-generator", "train-inverter"):
        one, two = (pretrainings.log(tmp_path / "runs" / run / name) for run in ("one", "two"))
        assert [row["step"] for row in two] == [1, 2, 3]
        for a, b in zip(one, two, strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=2e-6)
