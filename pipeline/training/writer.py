"""Writes a training's checkpoints beside it: the state is copied at once, and a thread writes the copy."""

import copy
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from pipeline import device
from pipeline.progress import say
from pipeline.training import checkpoint
from pipeline.training.state import State

SPARE = 1.5  # main memory that a copy needs, in sizes of the state


class Writer:
    """Writes one checkpoint at a time for the training `name`; an error in it is raised by the next call."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, state: State, step: int, seconds: float) -> None:
        """Write the state, beside the training if there is memory for a copy of it, else now.

        Raises: UserError when this checkpoint, or the one before, cannot be written.
        """
        self.wait()
        started = time.monotonic()
        tensors, meta = state.content(step, seconds)
        size = sum(t.nbytes for t in tensors.values())
        if SPARE * size > device.memory()[1]:
            self._write(state, step, tensors, copy.deepcopy(meta), time.monotonic())
            return
        taken = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
        self._writing = self._pool.submit(self._write, state, step, taken, copy.deepcopy(meta), started)

    def wait(self) -> None:
        """Wait until the checkpoint is written. Raises: UserError when it cannot be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(
        self, state: State, step: int, tensors: dict[str, torch.Tensor], meta: dict[str, object], started: float
    ) -> None:
        checkpoint.save(state.path, tensors, meta)
        size, seconds = state.path.stat().st_size / 1e6, time.monotonic() - started
        say(f"{self.name}: step {step}: a checkpoint of {size:.1f} MB, written in {seconds:.1f} s")
