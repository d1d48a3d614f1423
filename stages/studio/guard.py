"""What stands before every request: only this page, opened by this user, gets an answer; and each one is logged."""

import ipaddress
import secrets
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.progress import say

NAMES = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
OPEN_AGAIN = "open the link that the command printed last"


class Pass:
    """The one-time key of the link that is printed, and the token in the cookie of who used it.

    `renewed` gets each new link: one is spent when it is used, the next serves another browser.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", token: str = "") -> None:
        self.port, self.host = port, host
        self.token = token or secrets.token_urlsafe(32)
        self.key = secrets.token_urlsafe(16)
        self.renewed: Callable[[str], None] = lambda link: None

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers do not keep those of two ports apart."""
        return f"hypernst-{self.port}"

    @property
    def link(self) -> str:
        """The address that opens the page."""
        host = self.host if self.host not in ("0.0.0.0", "::") else "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?k={self.key}"

    def spend(self, key: str) -> bool:
        """Whether the key is right; then it is used up."""
        if not secrets.compare_digest(key.encode(), self.key.encode()):
            return False
        self.key = secrets.token_urlsafe(16)
        self.renewed(self.link)
        return True

    def knows(self, host: str) -> bool:
        """Whether a request's Host is this server: another name may be made to lead here (DNS rebinding).

        Served to the network, any address of numbers counts, as no name server gives those.
        """
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not colon:
            name, port = host, "80"
        if port != str(self.port):
            return False
        if name.lower() in NAMES:
            return True
        if self.host in NAMES:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() == self.host.lower()
        return True


class Guard:
    """Refuses requests of other pages and of strangers, sets the headers of every answer, logs without names."""

    def __init__(self, app: ASGIApp, entry: Pass) -> None:
        self.app, self.entry = app, entry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return await send({"type": "websocket.close", "code": 1008})
        started, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        answer: ASGIApp = self._refusal(scope) or self.app
        try:
            await answer(scope, receive, guarded)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            milliseconds = 1000 * (time.perf_counter() - started)
            say(f"studio: {scope['method']} {route} {status} {milliseconds:.0f} ms")

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.entry.knows(hosts[0]):
            return _no(400, "this address is not the studio's", OPEN_AGAIN)
        if any(origin != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
            return _no(403, "asked by another page", OPEN_AGAIN)
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _no(403, "asked by another site", OPEN_AGAIN)
        known = _has(headers.getlist("cookie"), self.entry.cookie, self.entry.token)
        keys = parse_qs(scope["query_string"].decode("latin-1")).get("k")
        if scope["path"] == "/" and scope["method"] == "GET" and keys:
            if not known and not self.entry.spend(keys[0]):
                return _no(403, "this link was used already, or is another studio's", OPEN_AGAIN)
            answer = RedirectResponse("/", 303)
            if not known:
                answer.set_cookie(self.entry.cookie, self.entry.token, httponly=True, samesite="strict")
            return answer
        return None if known else _no(403, "this browser did not open the studio", OPEN_AGAIN)


def _has(cookies: list[str], name: str, token: str) -> bool:
    found = (cookie_parser(cookie).get(name, "") for cookie in cookies)
    return any(secrets.compare_digest(value.encode(), token.encode()) for value in found)


def _no(status: int, error: str, way_out: str) -> Response:
    return JSONResponse({"error": error, "way_out": way_out}, status)
