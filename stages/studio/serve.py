"""The command `hypernst studio`: starts the server, and opens the page in the browser."""

import json
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipeline import files, ours, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.progress import say
from stages.apply.studio import Studio
from stages.portraits import kept

if TYPE_CHECKING:
    import uvicorn

PORT = 7717
UVICORN: dict[str, Any] = {  # it tells what it cancels at the end as errors; errors of requests are told by `answers`
    "log_level": "critical",
    "access_log": False,
    "server_header": False,
    "timeout_graceful_shutdown": 1,
}


def run(
    ctx: Context,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    exposed: bool = False,
    styles: Sequence[Path] = (),
    show: bool = True,
    keep: bool = False,
) -> int:
    """Serve the studio until it is interrupted.

    `port` 0 takes a free one, None PORT or else a free one. `host` other than this machine's own needs `exposed`.
    Raises: UserError(2) when the port is taken, or the packages are missing.
    """
    try:
        import uvicorn

        from stages.studio.app import Server
        from stages.studio.guard import NAMES, Pass
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UserError(f"the studio needs {error.name}; run `pip install 'hypernst[studio]'`", 2) from error
    if host not in NAMES and not exposed:
        raise UserError(f"--host {host} lets others on the network use this studio; add --i-know if that is meant", 2)
    for name in weights.needed(ctx.profile):
        weights.path(name)
    with session(ctx.cache) as (folder, token), _listen(host, port) as listening, weights.no_fetching():
        entry, kept_in = Pass(listening.getsockname()[1], host, token), ctx.cache if keep else folder
        cached = ctx.file("style", "images").parent
        server = Server(Studio(replace(ctx, cache=kept_in)), entry, tuple(styles), cached)
        serving = uvicorn.Server(uvicorn.Config(server.app(), **UVICORN))
        with _ended_by_signals(serving), closing(server):
            server.warm()
            if host not in NAMES:
                say(f"studio: everyone who reaches {host} and has the link can use it, and see the portraits in it")
            print(f"studio: {entry.link}", flush=True)
            entry.renewed = lambda link: print(f"studio: for another browser: {link}", flush=True)
            if show:
                threading.Timer(0.5, webbrowser.open, [entry.link]).start()
            serving.run(sockets=[listening])
    return 0


@contextmanager
def _ended_by_signals(serving: "uvicorn.Server") -> Iterator[None]:
    """Have Ctrl+C and SIGTERM end the server as soon as it can, at whatever moment they come."""

    def end(number: int, frame: FrameType | None) -> None:
        serving.should_exit = True

    former = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _listen(host: str, port: int | None) -> socket.socket:
    """A listening socket. Raises: UserError(2) when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in (PORT, 0) if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, attempt))
            listening.listen()  # from now on: who opens the link before the server is up waits for it
        except OSError as error:
            listening.close()
            if port is None and attempt:
                continue
            raise UserError(
                f"{host}:{attempt}: {error.strerror}; choose another --port, or 0 for a free one", 2
            ) from error
        return listening
    raise AssertionError


@contextmanager
def session(cache: Path) -> Iterator[tuple[Path, str]]:
    """The folder of this user alone in a cache folder, held for this process, and the token of its pages.

    It holds the portraits of one session, and is emptied at its start and end.

    The token outlives the process, so that a page goes on when its server was killed and is started again.
    Raises: UserError when another studio runs on the folder, or when it is a link.
    """
    folder = cache / ours.STUDIO
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link, which the studio does not follow; remove it, then run again")
    files.make_folder(folder)
    folder.chmod(0o700)
    with lock(folder, "studio"):
        _empty(folder)
        try:
            yield folder, _token(folder / ours.SESSION)
        finally:
            _empty(folder)


def _empty(folder: Path) -> None:
    """Remove every portrait in the folder."""
    for place in ours.portraits(folder):
        kept.remove(place)


def _token(path: Path) -> str:
    """The token in a file, which is made where there is none."""
    told = files.read_json(path).get("session")
    if isinstance(told, str) and len(told) >= 32:
        return told
    token = secrets.token_urlsafe(32)
    files.write_atomic(path, json.dumps({"session": token}).encode())
    path.chmod(0o600)
    return token
