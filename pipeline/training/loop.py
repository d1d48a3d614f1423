"""The loop around the steps of a training: one run at a time, a progress bar, a log, saving and resuming.

    with Loop("train", ctx.run, total, save=save, step=state.step) as loop:
        for step in loop:
            loop.tell(train_step(step))

The folder of a run holds log.jsonl (one JSON line per step), tensorboard/ and the files that `save` writes. The same
command resumes the run.
"""

import functools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from pipeline import device
from pipeline.context import Context
from pipeline.errors import STOPPED, STOPS, UserError
from pipeline.files import LineLog, read_lines, write_atomic
from pipeline.locks import lock
from pipeline.progress import EVERY, say
from pipeline.training.board import Board
from pipeline.training.distributed import ALONE, ProcessGroup
from pipeline.training.state import State
from pipeline.training.writer import Writer

SAVE_EVERY: int | None = None  # steps; None: by time alone
SAVE_MINUTES = 15.0
SKIPS = 100  # a run stops after this many steps in a row that are not finite


class Loop:
    """The steps from `step` to `total`, unless `minutes` of this call are over or a signal asks to stop.

    The main process calls `save(step)` every SAVE_MINUTES, every `save_every` steps if given, and at the end. Before
    the folder is released it calls `wait()`, for what is still being written. Pass the losses of each step to `tell`.
    `images` is the number of images per step. `spent` is the number of seconds of earlier calls. `changed` are the
    differences from these, a line each, which are said at the start.
    Raises: UserError when another run holds the folder, when a signal stopped the run (after saving; its status is that
        of the signal), or when SKIPS steps in a row were not finite.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        total: int,
        *,
        save: Callable[[int], None],
        step: int = 0,
        minutes: float | None = None,
        images: int = 1,
        spent: float = 0.0,
        save_every: int | None = SAVE_EVERY,
        wait: Callable[[], None] = lambda: None,
        process_group: ProcessGroup = ALONE,
        changed: Sequence[str] = (),
    ) -> None:
        self.name, self.folder, self.total, self.step, self.images, self.process_group = (
            name,
            folder,
            total,
            step,
            images,
            process_group,
        )
        self._save, self._every, self._spent, self._wait = save, save_every, spent, wait
        self._minutes, self._asked, self._in_a_row = minutes, 0, 0
        self._changed = changed

    @classmethod
    def of(
        cls, name: str, state: State, total: int, *, saved: Callable[[int], None] = lambda _: None, **options: Any
    ) -> "Loop":
        """A loop that goes on from `state` and saves it in its folder; with each save it calls `saved(step)`.

        The state is copied, and written beside the training if there is memory for the copy. The other `options` are
        those of a Loop.
        """
        writer = Writer(name)

        def save(step: int) -> None:
            writer.save(state, step, loop.seconds)
            saved(step)

        own: dict[str, Any] = {"step": state.step, "spent": state.seconds, "changed": state.changed}
        loop = cls(name, state.path.parent, total, save=save, wait=writer.wait, **own, **options)
        return loop

    def __enter__(self) -> "Loop":
        self._start = self._printed = self._saved = time.monotonic()
        with ExitStack() as opened:
            if self.process_group.is_main:
                opened.enter_context(lock(self.folder, self.name, nested=True))
                opened.callback(self._wait)
                for line in self._changed:
                    say(f"{self.name}: {line}; it resumes so: name another folder with --run to start anew")
                _trim(self.folder / "log.jsonl", self.step)
                self._log = opened.enter_context(LineLog(self.folder / "log.jsonl"))
                self._board = opened.enter_context(Board(self.folder / "tensorboard", self.step))
                self._bar = opened.enter_context(
                    tqdm(
                        total=self.total,
                        initial=self.step,
                        desc=self.name,
                        unit="step",
                        mininterval=1,
                        disable=not sys.stderr.isatty(),
                    )
                )
            for number in STOPS:
                if (former := signal.getsignal(number)) is not signal.SIG_IGN:  # as by nohup
                    opened.callback(signal.signal, number, former)
                    signal.signal(number, self._ask)
            self._open = opened.pop_all()
        self._first = self.step
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is None:
                self.save()
        if kind is None and self._asked and self.step < self.total:
            raise UserError(
                f"{self.name}: stopped after step {self.step} of {self.total}; run the same command again to resume",
                STOPPED + self._asked,
            )

    def __iter__(self) -> Iterator[int]:
        while self.step < self.total and not self._over():
            yield self.step
            self.step += 1
            by_steps = self._every is not None and self.step % self._every == 0
            if by_steps or time.monotonic() - self._saved > 60 * SAVE_MINUTES:
                self.save()

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, earlier calls included."""
        return self._spent + time.monotonic() - self._start

    def save(self) -> None:
        """Save now, in the main process."""
        if self.process_group.is_main:
            self._save(self.step)
        self._saved = time.monotonic()

    def tell(self, terms: Mapping[str, float], **more: Any) -> None:
        """Log the current step; TensorBoard shows `terms` as curves, `more` goes to log.jsonl only."""
        if not self.process_group.is_main:
            return
        finite = {name: round(value, 6) for name, value in terms.items() if math.isfinite(value)}
        row: dict[str, Any] = {"step": self.step + 1, **more, "time": round(time.time(), 1), **finite}
        if len(finite) < len(terms):
            row["not_finite"] = sorted(terms.keys() - finite.keys())
        self._log.add(row)
        self._board.curves(finite, self.step + 1)
        self._show(finite)

    def count(self, bad: str = "") -> None:
        """Count a step; `bad` says what was not finite, "" when all was. Such a step must change nothing.

        Raises: UserError after SKIPS such steps in a row.
        """
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if self._in_a_row >= SKIPS:
            self.step += 1
            self.save()
            raise UserError(
                f"{self.name}: {self._in_a_row} steps in a row were not finite ({bad}); {self.folder} keeps the "
                f"weights from before these steps; lower the learning rate, then run again"
            )

    def picture(self, name: str, rgb: Any) -> None:
        """Show an image u8 [H, W, 3] in TensorBoard."""
        if self.process_group.is_main:
            self._board.picture(name, rgb, self.step)

    def _show(self, terms: Mapping[str, float]) -> None:
        done = self.step + 1 - self._first
        elapsed = time.monotonic() - self._start
        rate = done * self.images / max(elapsed, 1e-9)
        text = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
        self._bar.set_postfix_str(f"{rate:.2f} img/s, {memory():.1f} GB, {text}", refresh=False)
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._printed > EVERY:
            self._printed = time.monotonic()
            remaining = (self.total - self.step - 1) * elapsed / done
            if self._minutes:
                remaining = max(0.0, min(remaining, self._minutes * 60 - elapsed))
            say(
                f"{self.name}: step {self.step + 1}/{self.total}, {rate:.2f} img/s, {remaining:.0f} s left, "
                f"{memory():.1f} GB, {text}"
            )

    def _over(self) -> bool:
        elapsed = (time.monotonic() - self._start) / 60
        stop = self._asked > 0 or (self._minutes is not None and elapsed >= self._minutes)
        over = self.process_group.any(stop)
        if over and self.process_group.any(self._asked > 0):
            self._asked = self._asked or signal.SIGTERM  # another process was asked
        return over

    def _ask(self, number: int, *_: object) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: the step is not waited for, nothing is saved
        self._asked = number
        if number == signal.SIGINT and self.process_group.is_main:
            # Written past Python's own streams, which a signal may have come into the midst of.
            os.write(2, f"{self.name}: stops and saves after this step; Ctrl-C again stops at once\n".encode())


def lock_run(folder: Path, process_group: ProcessGroup = ALONE, name: str = "train") -> AbstractContextManager[None]:
    """Hold a run's folder from before its checkpoint is loaded, by the first process alone; its Loop joins in."""
    return lock(folder, name) if process_group.is_main else nullcontext()


def holding(name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a training of one process, a function of a context, hold the run's folder `name` as `lock_run` does."""

    def wrap(train: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(train)
        def held(ctx: Context, *words: Any, **options: Any) -> int:
            with lock(ctx.run / name, name):
                return train(ctx, *words, **options)

        return held

    return wrap


def memory() -> float:
    """The most GB that this process has held: of GPU memory if it uses a GPU, else of main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return device.peak_memory() / 1e9


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.jsonl; lines that were cut or have no step are left out."""
    return steps(folder / "log.jsonl")


def steps(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines that tell of a step."""
    return [row for row in read_lines(path) if type(row.get("step")) is int]


def _trim(path: Path, step: int) -> None:
    """Drop the rows that a killed run logged after its last checkpoint; these steps are repeated."""
    if path.exists():
        kept = [row for row in rows(path.parent) if row["step"] <= step]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
