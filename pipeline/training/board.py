"""What TensorBoard shows of a training. Events are written in this thread: a full disk ends the run, not its curves."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pipeline.files import disk_error

FLUSH = 20.0  # seconds between two flushes


class Board:
    """An events file of TensorBoard in `folder`, which hides what a killed run wrote after `step`.

    Raises: UserError when it cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self.folder, self._flushed = folder, 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))
        except OSError as error:
            raise disk_error(error, folder) from error
        if step:
            self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def curves(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step, summary=scalar(name, value))

    def picture(self, name: str, rgb: Any, step: int) -> None:
        """Show an image u8 [H, W, 3]."""
        from tensorboardX.summary import image

        self._add(step, summary=image(name, rgb, dataformats="HWC"))

    def _add(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        try:
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
            if time.monotonic() - self._flushed > FLUSH:
                self._flushed = time.monotonic()
                self._events.flush()
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._events.close()
        except OSError as error:
            if kind is None:
                raise disk_error(error, self.folder) from error
