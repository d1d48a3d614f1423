"""A store of files elsewhere, which fsspec opens: http(s), S3 and others. Parts of files are read, patiently.

What fails for a while (a refused or lost connection, an answer that stalls or is cut, a server's error) is asked for
again. Of a store that does not give parts of files whole ones are read, and kept until the program ends.
"""

import atexit
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pipeline import files
from pipeline.errors import UserError, printable
from pipeline.progress import say

STALL = 15  # seconds without a byte after which an answer is given up
PATIENCE = 300.0  # seconds for which what fails is tried again
FIRST_PATIENCE = 5.0  # the same when a store is opened: its address may be wrong
LONGEST_WAIT = 10.0  # seconds between two tries
REQUESTS = 8  # at once, in each process
_SECRET = re.compile(r"(?<=//)[^/@\s]*@|(?<=\?)[^\s'\")]+")  # a name and password, or a signature
_LASTING = (FileNotFoundError, PermissionError, NotImplementedError, ValueError, ImportError)
_PASSING = (408, 425, 429)  # statuses under 500 that ask to try again later


class Span(NamedTuple):
    """A part of a file of `size` bytes: from `start` up to `stop`."""

    name: str
    start: int
    stop: int
    size: int


def is_url(place: str | Path) -> bool:
    """Whether `place` is for fsspec, and not a folder of this machine."""
    return isinstance(place, str) and "://" in place


def without_secrets(text: str) -> str:
    """The text without the credentials that URLs in it may hold."""
    return _SECRET.sub(lambda match: "" if match[0].endswith("@") else "…", text)


class Store:
    """The files in the folder `url`. It may be taken into other processes; each connects by itself.

    Credentials come from where the store's own tools look for them (environment, ~/.netrc, ~/.aws), or from the URL.
    They appear in no message. Raises: UserError(2) when fsspec has no way to open such a URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._pid = 0
        self._kept: Path | None = None  # where whole files are kept, when it does not give parts of them
        self._connect()

    def __str__(self) -> str:
        return without_secrets(self._url)

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url, "_pid": 0, "_kept": self._kept}

    def path(self, name: str) -> str:
        """Where a file lies, for messages."""
        return without_secrets(self._full(name))

    def whole(self, name: str) -> bytes:
        """The contents of a file. Raises: UserError when it cannot be read."""
        self._connect()
        data = self._tried(name, FIRST_PATIENCE, lambda: self._fs.cat_file(self._full(name), start=0, end=1))
        if len(data) <= 1:
            return self._tried(name, PATIENCE, lambda: self._fs.cat_file(self._full(name)))
        if self._kept is None:  # asked for one byte, it sent all
            self._kept = Path(tempfile.mkdtemp(prefix="hypernst-shards-"))
            atexit.register(_remove, self._kept, os.getpid())
            say(f"{self}: does not give parts of files; whole shards are kept in {self._kept} until the end")
        return data

    def spans(self, spans: Iterable[Span]) -> list[bytes]:
        """The bytes of each span, read at the same time. Raises: UserError when one cannot be read."""
        self._connect()
        return list(self._pool.map(self._span, spans))

    def _span(self, span: Span) -> bytes:
        if self._kept is None:
            return self._tried(span.name, PATIENCE, lambda: self._exactly(span.name, span.start, span.stop))
        place = self._kept / span.name
        with self._lock:
            if not place.exists():
                data = self._tried(span.name, PATIENCE, lambda: self._exactly(span.name, 0, span.size))
                files.write_atomic(place, data)
        with place.open("rb") as file:
            file.seek(span.start)
            return file.read(span.stop - span.start)

    def _exactly(self, name: str, start: int, stop: int) -> bytes:
        part = {} if self._kept else {"start": start, "end": stop}
        data: bytes = self._fs.cat_file(self._full(name), **part)
        if len(data) != stop - start:
            raise EOFError(f"{len(data)} bytes instead of {stop - start} from {start} on")
        return data

    def _tried(self, name: str, patience: float, read: Callable[[], bytes]) -> bytes:
        begun, wait = time.monotonic(), 0.1
        while True:
            try:
                return read()
            except Exception as error:  # each kind of store has its own
                reason, lasting = _reason(error)
                seconds = time.monotonic() - begun
            if lasting or seconds > patience:  # outside of `except`: the cause would show the URL with its credentials
                tried = "" if lasting else f", tried for {seconds:.0f} s"
                raise UserError(
                    f"{self.path(name)}: cannot be read ({reason}{tried}); check the address, the credentials and the "
                    "network, then run again"
                )
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _full(self, name: str) -> str:
        parts = urlsplit(self._url)
        if parts.scheme in ("http", "https"):  # what follows the path stays behind it: it may be a signature
            return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
        return f"{self._url}/{name}"

    def _connect(self) -> None:
        if self._pid == os.getpid():
            return
        import fsspec

        try:
            options = _options(urlsplit(self._url).scheme)
            self._fs: Any = fsspec.core.url_to_fs(self._url, skip_instance_cache=True, **options)[0]
        except (ImportError, ValueError) as error:
            reason = without_secrets(str(error))
        else:
            self._fs.retries = 1  # of S3: here all stores are tried again by the same rule
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="store")
            return
        raise UserError(
            f"{self}: cannot be opened ({reason}); http(s) and S3 need an extra: `make setup`, or "
            "`pip install 'hypernst[remote]'`; other stores need the package that fsspec names",
            2,
        )


def _options(scheme: str) -> dict[str, Any]:
    """What a kind of store needs to notice that an answer stalls, and to find the user's proxy and ~/.netrc."""
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL, sock_read=STALL)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    if scheme in ("s3", "s3a"):
        once = {"max_attempts": 1}
        return {"config_kwargs": {"connect_timeout": STALL, "read_timeout": STALL, "retries": once}}
    return {}


def _reason(error: Exception) -> tuple[str, bool]:
    """What went wrong in a few words without credentials, and whether it is so for good."""
    status = getattr(error, "status", None)  # of an error of aiohttp
    if isinstance(status, int):
        return f"status {status}", status < 500 and status not in _PASSING
    if isinstance(error, FileNotFoundError):
        return "not found", True
    text = without_secrets(printable(" ".join(str(error).split())))
    return text or type(error).__name__, isinstance(error, _LASTING)


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a child
        shutil.rmtree(folder, ignore_errors=True)
