"""What happens, told to every open page as server-sent events; a page that was away gets what it missed."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

KEPT = 512  # events
HEARTBEAT = 15.0  # seconds


class Events:
    """Numbered events and the pages that listen. `tell` may be called from any thread."""

    def __init__(self, instance: str) -> None:
        self.instance = instance  # of this start of the server: numbers of another mean nothing here
        self._loop: asyncio.AbstractEventLoop | None = None
        self._past: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._number = 0
        self._pages: set[asyncio.Queue[bytes]] = set()

    def tell(self, kind: str, facts: dict[str, Any]) -> None:
        """Send an event to every page."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, kind, facts)

    def start(self) -> None:
        """Send from this event loop on."""
        self._loop = asyncio.get_running_loop()

    def _tell(self, kind: str, facts: dict[str, Any]) -> None:
        self._number += 1
        event = f"id: {self.instance}-{self._number}\nevent: {kind}\ndata: {json.dumps(facts)}\n\n".encode()
        self._past.append((self._number, event))
        for page in self._pages:
            page.put_nowait(event)

    async def listen(self, last: str) -> AsyncIterator[bytes]:
        """Events as they come, after those that followed the one with the id `last`."""
        page: asyncio.Queue[bytes] = asyncio.Queue()
        self._pages.add(page)
        try:
            yield f"event: hello\ndata: {json.dumps({'instance': self.instance})}\n\n".encode()
            instance, _, number = last.rpartition("-")
            after = int(number) if instance == self.instance and number.isdecimal() else None
            if after is not None:
                for event in [event for at, event in self._past if at > after]:
                    yield event
            while True:
                try:
                    yield await asyncio.wait_for(page.get(), HEARTBEAT)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._pages.discard(page)
