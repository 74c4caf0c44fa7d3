"""A client of the bridge in Python: requests as method calls, frames as arrays. For one thread."""

import math
import time
from collections import deque
from typing import TypeVar

import msgspec
import numpy as np
import zmq

from playhead.engine.bridge.client.diagnosis import Diagnosis
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.auth import ClientKeys, check_target
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.world.errors import PlayheadError

PATIENCE = 30.0
"""Seconds that a reply is waited for."""
LOOK = 0.2
"""Seconds between two looks at whether the connection was refused."""
Expected = TypeVar("Expected", bound=protocol.Message)


class Client:
    """A connection to a server. `pushes` collects what came unasked: receipts and changes of control.

    `resume` is the token of an earlier welcome, to be that client again. `patience` are the seconds that a
    reply is waited for, from the welcome on too. `address`: of the server. `socket` may be polled; it belongs
    to this class. Raises BridgeError where a request is refused, PlayheadError where there is no answer, the
    connection is lost or the server does not keep to the protocol.
    """

    def __init__(
        self,
        address: str,
        name: str = "python",
        keys: ClientKeys | None = None,
        patience: float = PATIENCE,
        resume: str = "",
    ) -> None:
        """Connects and says hello; `resume`: the token of an earlier welcome, to be that client again."""
        self.address, self._keys, self.patience = address, keys, patience
        check_target(address)
        self._context = zmq.Context()
        self.socket = self.new_socket(zmq.DEALER)
        self._diagnosis = Diagnosis(self.socket, keys is not None)
        self._next = 0
        self.pushes: deque[protocol.Message] = deque(maxlen=10_000)
        try:
            self.socket.connect(address)
            hello = protocol.HelloRequest(protocol=[protocol.VERSION], client=name, resume=resume)
            self.welcome, _ = self.ask(hello, protocol.WelcomeReply)
        except BaseException:
            self.close()
            raise

    def new_socket(self, kind: int) -> zmq.Socket[bytes]:
        """A socket of this client's, with its keys."""
        made = self._context.socket(kind)
        made.linger = 0
        made.ipv6 = "[" in self.address
        made.maxmsgsize = protocol.MAX_REPLY
        if self._keys is not None:
            self._keys.apply(made)
        return made

    def watch(self, session: str, codec: str = "raw") -> zmq.Socket[bytes]:
        """A socket that receives a session's frames: topic, header, and a part a frame."""
        host = self.address.rpartition(":")[0]
        made = self.new_socket(zmq.SUB)
        made.rcvhwm = 4
        made.connect(f"{host}:{self.welcome.frames_port}")
        made.subscribe(protocol.topic(session, codec))
        return made

    @property
    def lost(self) -> bool:
        """Whether the connection has ended since the welcome."""
        if not self.socket.closed:
            self._diagnosis.look()
        return self.socket.closed or self._diagnosis.lost

    def ask(self, request: protocol.Message, reply: type[Expected]) -> tuple[Expected, np.ndarray | None]:
        """Sends a request (its id is chosen here), waits for the reply and the frames that come with it."""
        return self.answer(self.send(request), reply)

    def answer(self, id: int, reply: type[Expected]) -> tuple[Expected, np.ndarray | None]:
        """Waits for the reply to the request that was sent with this id, and the frames that come with it."""
        until = time.monotonic() + self.patience
        while True:
            left = until - time.monotonic()
            found = self.receive(min(LOOK, left))
            if found is None:
                self._diagnosis.look()
                if self._diagnosis.lost:
                    raise PlayheadError(self._gone)
                if left <= LOOK or self._diagnosis.refused:
                    raise PlayheadError(f"{self.address} does not answer: {self._diagnosis.reason()}")
                continue
            message, frames = found
            if isinstance(message, protocol.PUSHES) and (message.id != id or not isinstance(message, reply)):
                self.pushes.append(message)
            elif message.id == id:
                if isinstance(message, protocol.ErrorReply):
                    greeted = message.code != "hello_first"  # else: by another than the one who answers
                    raise BridgeError(message.code, message.message if greeted else self._gone)
                if not isinstance(message, reply):
                    raise self._nonsense(f"it answered with {type(message).__name__.lower()}")
                return message, frames

    @property
    def _gone(self) -> str:
        return f"the connection to {self.address} is lost; connect again"

    def wait(self, seconds: float) -> bool:
        """Waits for a message, at most so long; what comes unasked is added to `pushes`, an answer lost."""
        found = self.receive(seconds)
        if found is not None and isinstance(found[0], protocol.PUSHES):
            self.pushes.append(found[0])
        return found is not None

    def send(self, request: protocol.Message) -> int:
        """Sends a request and does not wait. Returns the id that it was given."""
        self._next += 1
        self.socket.send(protocol.encode(msgspec.structs.replace(request, id=self._next)))
        return self._next

    def receive(self, seconds: float) -> tuple[protocol.Message, np.ndarray | None] | None:
        """The next message of the server's, with its frames; None if there is none in time."""
        self.socket.rcvtimeo = max(0, round(seconds * 1000))  # quicker than to poll first
        try:
            parts = self.socket.recv_multipart(copy=False)
        except zmq.Again:
            return None
        try:
            message = protocol.decode_reply(parts[0].buffer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._nonsense(str(error)[:200]) from None
        shape = getattr(message, "shape", None)
        if shape is None:
            return message, None
        if len(parts) != 2 or math.prod(shape) != len(parts[1]):
            raise self._nonsense(f"it sent no frames of the shape {shape}")
        return message, np.frombuffer(parts[1].buffer, np.uint8).reshape(shape)

    def _nonsense(self, reason: str) -> PlayheadError:
        """What to raise where a server does not keep to the protocol."""
        return PlayheadError(f"{self.address} is no server of this protocol ({reason}); connect to another")

    def close(self) -> None:
        if not self.socket.closed:
            self._diagnosis.close()
            self._context.destroy(0)
