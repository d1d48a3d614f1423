"""Web and S3 servers on this machine that fail as real ones do."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from werkzeug.exceptions import HTTPException, NotFound, Unauthorized
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

App = Callable[[dict, Callable], Iterable[bytes]]
FAULTS = ("500", "drop", "stall", "cut")


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None: ...


def files(folder: Path, *, parts: bool = True, password: str = "") -> App:
    """Serves a folder; `parts`: as asked for by Range; with a password for those who know it alone."""

    @Request.application
    def app(request: Request) -> Response | HTTPException:
        path = folder / request.path.lstrip("/")
        if password and (request.authorization is None or request.authorization.password != password):
            return Unauthorized()
        if not path.is_file():
            return NotFound()
        return send_file(path, request.environ if parts else {"REQUEST_METHOD": "GET"}, conditional=parts)

    return app


class Faulty:
    """Every `every`-th answer of `app` to a GET of `suffix` fails, each time in another of the ways FAULTS."""

    def __init__(self, app: App, every: int, stall: float, suffix: str = ".tar") -> None:
        self.app, self.every, self.stall, self.suffix = app, every, stall, suffix
        self.asked, self.failed = itertools.count(1), 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not environ["PATH_INFO"].endswith(self.suffix):
            return self.app(environ, start_response)
        with self._lock:
            fault = ""
            if self.every and next(self.asked) % self.every == 0:
                fault = FAULTS[self.failed % len(FAULTS)]
                self.failed += 1
        if fault == "500":
            return Response("no", 500)(environ, start_response)
        if fault == "stall":
            time.sleep(self.stall)
        if fault == "drop":
            raise ConnectionError("dropped before an answer")
        answer = self.app(environ, start_response)
        return self._cut(answer) if fault == "cut" else answer

    def _cut(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        data = b"".join(answer)
        yield data[: len(data) // 2]
        raise ConnectionError("dropped within an answer")


@contextmanager
def served(app: App) -> Iterator[str]:
    """The address of a server of `app`, which runs meanwhile."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    server.log = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def s3() -> App:
    """moto's S3, in memory."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's settings counts, and S3 has the credentials that `upload` uses."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def upload(address: str, folder: Path) -> None:
    """Put the files of a folder into the bucket `ours`, under the folder's name."""
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="me", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="ours")
    for path in folder.iterdir():
        client.put_object(Bucket="ours", Key=f"{folder.name}/{path.name}", Body=path.read_bytes())
