"""A client in the server's own process: requests as method calls, as over a socket, under the same limits."""

import threading
from concurrent.futures import Future
from typing import TypeVar

import msgspec
import numpy as np

from playhead.engine.bridge.server.connection import Connection
from playhead.engine.bridge.server.limits import RateLimit
from playhead.engine.bridge.server.server import Server
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.world.errors import PlayheadError

PATIENCE = 60.0
"""Seconds that a reply is waited for."""
Expected = TypeVar("Expected", bound=p.Message)
Answered = tuple[p.Message, np.ndarray | None]


class InProcessClient(Connection):
    """Says hello, asks and waits, for any thread but the server's; what comes unasked is forgotten.

    A context manager: in the end its control is given up, as that of a connection that is lost, and its
    sessions wait. Raises BridgeError where a request is refused, PlayheadError where the server ends.
    """

    def __init__(self, server: Server, name: str, rate: int, patience: float = PATIENCE) -> None:
        """`rate`: requests a second at the most."""
        super().__init__(RateLimit(rate), server.frames_port)
        self._server, self._rate, self.patience = server, rate, patience
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Answered]] = {}
        self._next = 0
        server.post(lambda: server.connections.join(self))
        self.ask(p.HelloRequest(protocol=[p.VERSION], client=name), p.WelcomeReply)

    def ask(self, request: p.Message, reply: type[Expected]) -> tuple[Expected, np.ndarray | None]:
        """Sends a request (its id is chosen here), waits for the reply and the frames that come with it."""
        if not self.allowance.take():
            raise BridgeError("rate", f"more than {self._rate} requests a second; slow down")
        found: Future[Answered] = Future()
        with self._lock:
            self._next += 1
            asked = msgspec.structs.replace(request, id=self._next)
            self._asked[asked.id] = found
        self._server.post(lambda: self._server.obey(self, asked))
        try:
            message, frames = found.result(self.patience)
        except TimeoutError:
            raise PlayheadError("the server does not answer; try again in a moment") from None
        finally:
            with self._lock:
                self._asked.pop(asked.id, None)
        if isinstance(message, p.ErrorReply):
            raise BridgeError(message.code, message.message)
        assert isinstance(message, reply), f"{type(request).__name__} is answered by {type(message).__name__}"
        return message, frames

    @property
    def unread(self) -> int:
        return 0  # an answer is read as it comes

    def write(self, message: p.Message, frames: np.ndarray | None = None) -> bool:
        with self._lock:
            waiting = (
                None if isinstance(message, p.PUSHES) and not message.id else self._asked.get(message.id)
            )
        if waiting is not None and not waiting.done():
            waiting.set_result((message, frames))
        return True

    def cut(self) -> None:
        with self._lock:
            waiting = [*self._asked.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(PlayheadError("the server has hung up; try again in a moment"))

    def close(self) -> None:
        self._server.post(lambda: self._server.connections.part(self))

    def __enter__(self) -> "InProcessClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
