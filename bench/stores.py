"""Reading shards over the network: samples per second from a web server on loopback, beside the same requests alone.

The server is a process of its own. The bound asks it for the same parts of files, by as many connections, and does
nothing with them. Times are wall-clock times, measured in turn, so that a busy machine slows all of them equally. The
last rows are what `train` does: a process reads ahead of steps that take a while, here of sleep.
"""

import http.client
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any

from bench.readers import BATCH, COUNT, sample
from pipeline.shards import writer
from pipeline.shards.batches import order
from pipeline.shards.indexed import Loader, Samples, span
from pipeline.shards.store import REQUESTS, Span

ROUNDS = 5
STEPS, SECONDS = 20, 0.5  # steps of a training


class _Server(BaseHTTPRequestHandler):
    """Parts of the files in `folder`; every `every`-th request fails."""

    protocol_version = "HTTP/1.1"
    folder, every, asked = Path(), 0, itertools.count(1)

    def do_GET(self) -> None:
        if self.every and next(self.asked) % self.every == 0:
            self.send_error(500)
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-") if "Range" in self.headers else ("0", "")
        with (self.folder / self.path.lstrip("/")).open("rb") as file:
            file.seek(int(first))
            data = file.read(int(last) + 1 - int(first) if last else -1)
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


def serve(folder: Path, every: int, port: Any) -> None:
    """Serve until the process is ended; the port goes into the queue `port`."""
    _Server.folder, _Server.every = folder, every
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        port.put(server.server_port)
        server.serve_forever()


def bare(connections: "SimpleQueue[http.client.HTTPConnection]", part: Span) -> int:
    """Ask for one sample's part, as `Samples` does, and do nothing with it; its bytes."""
    connection = connections.get()
    connection.request("GET", f"/{part.name}", headers={"Range": f"bytes={part.start}-{part.stop - 1}"})
    data = connection.getresponse().read()
    connections.put(connection)
    return len(data)


def trained(samples: Samples, workers: int) -> float:
    """Samples per second of a training with steps of SECONDS, from its second step on."""
    batches = iter(Loader(samples, BATCH, 0, workers=workers, full=True).loader())
    next(batches)
    start = time.perf_counter()
    for _ in range(STEPS):
        time.sleep(SECONDS)
        next(batches)
    return STEPS * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Print the samples per second of each way."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(REQUESTS) as pool:
        folder = Path(name)
        writer.write(folder, [("content", "train", map(sample, range(COUNT)))], 8_000_000, {})
        servers, ports = [], []
        for every in (0, 100):
            queue = context.SimpleQueue()
            servers.append(context.Process(target=serve, args=(folder, every, queue), daemon=True))
            servers[-1].start()
            ports.append(queue.get())
        numbers = order(COUNT, 0, 0).tolist()
        batches = [numbers[i : i + BATCH] for i in range(0, COUNT, BATCH)]
        local = Samples(folder, "content")
        connections: SimpleQueue[http.client.HTTPConnection] = SimpleQueue()
        for _ in range(REQUESTS):
            connections.put(http.client.HTTPConnection("127.0.0.1", ports[0]))
        parts = [span(shard, i) for shard in local.shards for i in range(shard.samples)]

        def bound() -> None:
            for batch in batches:
                list(pool.map(partial(bare, connections), [parts[number] for number in batch]))

        def drain(samples: Samples) -> Callable[[], object]:
            return lambda: [[dict(s)["key"] for s in samples.batch(batch)] for batch in batches]

        works: dict[str, Callable[[], object]] = {
            "the same requests, nothing else (the bound)": bound,
            "from the server, decoded": drain(Samples(f"http://127.0.0.1:{ports[0]}", "content")),
            "from the server, decoded, 1 % of requests fail": drain(Samples(f"http://127.0.0.1:{ports[1]}", "content")),
            "from the folder, decoded": drain(local),
        }
        times: dict[str, list[float]] = {n: [] for n in works}
        for _ in range(ROUNDS + 1):
            for n, work in works.items():
                start = time.perf_counter()
                work()
                times[n].append(time.perf_counter() - start)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        ways = ("from the server", "from the server, 1 % of requests fail")
        steps = {way: trained(Samples(url, "content"), 1) for way, url in zip(ways, urls, strict=True)}
        steps["from the folder"] = trained(local, 0)
        for server in servers:
            server.terminate()
    print(f"{COUNT} samples, {sum(s.bytes for s in local.shards) / COUNT / 1e3:.0f} kB each, {os.cpu_count()} cores.\n")
    print("| reading, one process | samples/s |\n|---|---|")
    for n, seconds in times.items():
        print(f"| {n} | {COUNT / median(seconds[1:]):.0f} |")
    print(f"\n| training, steps of {BATCH} samples and {SECONDS} s: at most | {BATCH / SECONDS:.1f} |\n|---|---|")
    for n, rate in steps.items():
        print(f"| {n} | {rate:.1f} |")


if __name__ == "__main__":
    main()
