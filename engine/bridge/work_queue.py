"""Work that other threads leave for one that waits for it together with its sockets."""

import contextlib
import queue
import socket
from collections.abc import Callable


class WorkQueue:
    """Work for one thread; `woken` can be read from, by a poll too, once there is some.

    `failed` is told the error of a piece of work, and the others are done; without it `do` raises that error,
    and is to be called again for the others.
    """

    def __init__(self, failed: Callable[[Exception], None] | None = None) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._failed = failed
        self._waker, self.woken = socket.socketpair()
        self._waking = False
        self._waker.setblocking(False)
        self.woken.setblocking(False)

    def post(self, work: Callable[[], None]) -> None:
        """Has `work` called on that thread; may be called by any thread."""
        self._work.put(work)
        self.wake()

    def wake(self) -> None:
        """Has that thread look up, whatever there is to do; may be called by any thread."""
        if self._waking:  # it has not even begun with what was left before
            return
        self._waking = True
        with contextlib.suppress(BlockingIOError, OSError):  # it is being woken already, or gone
            self._waker.send(b".")

    def do(self) -> None:
        """On that thread: all there is to do."""
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4096)
        self._waking = False
        while not self._work.empty():
            try:
                self._work.get()()
            except Exception as error:
                if self._failed is None:
                    self.wake()
                    raise
                self._failed(error)

    def close(self) -> None:
        self._waker.close()
        self.woken.close()
