"""Work that takes its time, done for many clients by one thread: a slice at a time, one client after another.

What is to be done is a generator, as `engine.work` says.
"""

import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from typing import Any

from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.work import Answer, Work

SLICE = 0.05
"""Seconds after which another client's work has its turn."""
_Job = tuple[Work[Any], Future[Any]]


class Slices:
    """A thread that does work in slices. Its methods may be called by any thread."""

    def __init__(self, name: str) -> None:
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()  # by client; the next one first
        self._given_up: list[_Job] = []
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, client: str, work: "Work[Answer]") -> "Future[Answer]":
        """Has work done for a client, after all that it has asked for before. Returns its answer or error."""
        future: Future[Answer] = Future()
        with self._condition:
            self._waiting.setdefault(client, deque()).append((work, future))
            self._condition.notify()
        return future

    def count(self, client: str) -> int:
        """How much of a client's work is not done yet."""
        with self._condition:
            return len(self._waiting.get(client, ()))

    def cancel(self, client: str) -> None:
        """Gives up all work for a client, what is under way after its slice."""
        with self._condition:
            self._given_up += self._waiting.pop(client, ())
            self._condition.notify()

    def close(self) -> None:
        """Gives everything up, what is under way after its slice."""
        with self._condition:
            self._closing = True
            for client in list(self._waiting):
                self._given_up += self._waiting.pop(client)
            self._condition.notify()

    def wait(self, seconds: float) -> None:
        """Waits for the end, at most so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Waits for work, and does a slice of it; returns whether there may be more.

        What it was about is forgotten then: a session that was opened goes when it is closed.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._given_up or self._closing)
            given_up, self._given_up = self._given_up, []
            client, queue = next(iter(self._waiting.items()), ("", None))
            job = queue[0] if queue else None
            if queue:
                self._waiting.move_to_end(client)
        for work, future in given_up:
            work.close()
            future.set_exception(BridgeError("ended", "whoever asked for it is gone"))
        if job is None:
            return not self._closing
        if _advance(*job):
            self._take_out(client, job)
        return True

    def _take_out(self, client: str, job: _Job) -> None:
        """Work is done."""
        with self._condition:
            if job in self._given_up:  # just now: it has its answer all the same
                self._given_up.remove(job)
            elif client in self._waiting:
                self._waiting[client].popleft()
                if not self._waiting[client]:
                    del self._waiting[client]


def _advance(work: Work[Any], future: Future[Any]) -> bool:
    """Does a slice of work; returns whether that was the last."""
    until = time.perf_counter() + SLICE
    try:
        while time.perf_counter() < until:
            next(work)
    except StopIteration as ended:
        future.set_result(ended.value)
    except BaseException as error:
        future.set_exception(error)
    else:
        return False
    return True
