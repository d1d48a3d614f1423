"""The order of work: what is urgent goes first, at pauses too; nothing is lost, what is not wanted ends."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from pipeline.errors import UserError
from pipeline.progress import pause
from stages.studio import answers
from stages.studio.worker import Busy, Cancelled, Job, Rank, Worker, in_words


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(lambda job: None)
    yield made
    made.stop()


def test_urgent_work_goes_first_and_at_every_pause(worker: Worker) -> None:
    order: list[str] = []
    ready, go = threading.Event(), threading.Event()

    def batch(job: Job) -> str:
        ready.set()
        go.wait(60)
        order.append("batch 1")
        worker.progress("pass", 1, 2)
        order.append("batch 2")
        return "made"

    def exporting(job: Job) -> None:
        order.append("export 1")
        pause()  # as long computations do, which know nothing of this worker
        order.append("export 2")

    def importing(job: Job) -> None:
        order.append("import")
        late.append(worker.submit(Job("render", Rank.EXACT, lambda job: order.append("late exact"))))
        pause()
        order.append("imported")

    late: list[Job] = []
    first = worker.submit(Job("batch", Rank.BATCH, batch))
    ready.wait(60)
    jobs = [
        worker.submit(Job(name, rank, work))
        for name, rank, work in (
            ("export", Rank.EXPORT, exporting),
            ("import", Rank.IMPORT, importing),
            ("keyframe", Rank.KEYFRAME, lambda job: order.append("keyframe")),
            ("exact", Rank.EXACT, lambda job: order.append("exact")),
            ("other batch", Rank.BATCH, lambda job: order.append("other batch")),
        )
    ]
    go.set()
    assert first.future.result(60) == "made" and first.told()["state"] == "done"
    for job in (*jobs, *late):
        job.future.result(60)
    expected = "batch 1,exact,keyframe,import,late exact,imported,export 1,export 2,batch 2,other batch"
    assert ",".join(order) == expected


def test_what_is_not_wanted_ends_and_what_fails_stops_nobody(worker: Worker) -> None:
    ready, go, seen = threading.Event(), threading.Event(), []

    def running(job: Job) -> None:
        ready.set()
        go.wait(60)
        worker.pause()
        seen.append("went on")

    job, waiting = Job("import", Rank.IMPORT, running), Job("export", Rank.EXPORT, lambda job: seen.append("began"))
    failing = Job("style", Rank.BATCH, lambda job: 1 / 0)  # type: ignore[arg-type]
    for each in (job, waiting, failing):
        worker.submit(each)
    ready.wait(60)
    worker.cancel(waiting)
    worker.cancel(job)
    go.set()
    for cancelled in (job, waiting):
        with pytest.raises(Cancelled):
            cancelled.future.result(60)
        assert cancelled.told()["state"] == "cancelled"
    with pytest.raises(ZeroDivisionError):
        failing.future.result(60)
    assert failing.told()["error"] == "something went wrong here" and not seen
    left = worker.submit(Job("render", Rank.BATCH, lambda job: 6))
    assert not left.future.cancel()  # as asyncio does for who is gone: it must not end the worker
    assert worker.submit(Job("render", Rank.BATCH, lambda job: 7)).future.result(60) == 7
    assert in_words(UserError("me.jpg: is bad; save it again")) == {
        "error": "me.jpg: is bad",
        "way_out": "save it again",
    }


def test_a_job_that_waits_too_long_in_line_is_refused(worker: Worker) -> None:
    begun, go = threading.Event(), threading.Event()
    worker.submit(Job("batch", Rank.BATCH, lambda job: begun.set() or go.wait(60)))
    assert begun.wait(60)
    with pytest.raises(Busy):
        for _ in range(20):
            worker.submit(Job("style", Rank.IMPORT, lambda job: None))
    go.set()


def test_a_page_that_left_ends_its_job_and_leaves_no_traceback(worker: Worker) -> None:
    told, go = list[Any](), threading.Event()

    async def left() -> Message:
        return {"type": "http.disconnect"}

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        worker.submit(Job("test", Rank.EXACT, lambda job: go.wait(60)))
        job = worker.submit(Job("render", Rank.EXACT, lambda job: None))
        with pytest.raises(ClientDisconnect):
            await answers.done(Request({"type": "http"}, left), worker, job)
        assert job.state == "cancelled"
        await asyncio.sleep(0.01)
        gc.collect()

    with ThreadPoolExecutor(1) as pool:  # the tests' own thread may have a loop already
        pool.submit(asyncio.run, leave()).result()
    go.set()
    assert told == []
