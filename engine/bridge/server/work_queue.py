"""Work that other threads leave for the server's, which waits for it together with its sockets."""

import contextlib
import logging
import queue
import socket
from collections.abc import Callable


class WorkQueue:
    """Work for one thread; `woken` can be read from, by a poll too, once there is some."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker, self.woken = socket.socketpair()
        self._waking = False
        self._waker.setblocking(False)
        self.woken.setblocking(False)

    def post(self, work: Callable[[], None]) -> None:
        """Has `work` called on that thread; may be called by any thread."""
        self._work.put(work)
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
            except Exception:  # a fault of ours, and no reason to leave everybody else without a server
                logging.getLogger("playhead").exception("the bridge could not finish a piece of work")

    def close(self) -> None:
        self._waker.close()
        self.woken.close()
