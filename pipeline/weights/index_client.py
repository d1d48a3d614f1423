"""The client that reads a package index: as unearth's, but with a limit on the size of a page."""

from typing import Any

import httpx2
from unearth.fetchers.sync import PyPIClient

PAGE = 1 << 25  # most bytes of an index page; the longest have a few MB
UNPACKED = ("content-encoding", "content-length", "transfer-encoding")


class IndexClient(PyPIClient):
    """Reads pages whole and archives as streams."""

    def get(self, url: Any, **options: Any) -> httpx2.Response:
        """Get a page. Raises: httpx2.DecodingError when it is longer than PAGE; other errors of httpx2."""
        data = bytearray()
        with self.stream("GET", url, **options) as response:
            for block in response.iter_bytes(1 << 16):
                data += block
                if len(data) > PAGE:
                    raise httpx2.DecodingError(f"a page of more than {PAGE >> 20} MB", request=response.request)
            headers = [(name, value) for name, value in response.headers.items() if name.lower() not in UNPACKED]
            return httpx2.Response(response.status_code, headers=headers, content=bytes(data), request=response.request)
