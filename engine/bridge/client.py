"""A client of the bridge in Python: requests as method calls, frames as arrays. For one thread."""

import time
from collections import deque
from typing import TypeVar

import msgspec
import numpy as np
import zmq

from engine.bridge import protocol
from engine.bridge.auth import ClientKeys
from engine.bridge.protocol import BridgeError
from world.errors import PlayheadError

PATIENCE = 30.0
"""Seconds that a reply is waited for."""
Expected = TypeVar("Expected", bound=protocol.Message)


class Client:
    """A connection to a server. `pushes` collects what came unasked: receipts and changes of control.

    Raises BridgeError where a request is refused, PlayheadError where there is no answer.
    """

    def __init__(
        self, address: str, name: str = "python", keys: ClientKeys | None = None, patience: float = PATIENCE
    ) -> None:
        self._address, self._keys, self._patience = address, keys, patience
        self._context = zmq.Context()
        self._socket = self.connect(zmq.DEALER, address)
        self._next = 0
        self.pushes: deque[protocol.Message] = deque(maxlen=10_000)
        try:
            hello = protocol.Hello(protocol=[protocol.VERSION], client=name)
            self.welcome, _ = self.ask(hello, protocol.Welcome)
        except BaseException:
            self.close()
            raise

    def connect(self, kind: int, address: str) -> zmq.Socket:
        """A socket of this client's, with its keys."""
        made = self._context.socket(kind)
        made.linger = 0
        made.ipv6 = "[" in address
        if self._keys is not None:
            self._keys.apply(made)
        try:
            made.connect(address)
        except zmq.ZMQError as error:
            raise PlayheadError(f"`{address}` is no address to connect to ({error.strerror})") from None
        return made

    def watch(self, session: str, codec: str = "raw") -> zmq.Socket:
        """A socket that receives a session's frames: topic, header, and a part a frame."""
        host = self._address.rpartition(":")[0]
        made = self.connect(zmq.SUB, f"{host}:{self.welcome.frames_port}")
        made.rcvhwm = 4
        made.subscribe(protocol.topic(session, codec))
        return made

    def ask(self, request: protocol.Message, reply: type[Expected]) -> tuple[Expected, np.ndarray | None]:
        """Sends a request (its id is chosen here), waits for the reply and the frames that come with it."""
        id = self.send(request)
        until = time.monotonic() + self._patience
        while True:
            found = self.receive(until - time.monotonic())
            if found is None:
                raise PlayheadError(f"{self._address} does not answer; check the server, and the keys")
            message, frames = found
            if isinstance(message, protocol.PUSHES) and (message.id != id or not isinstance(message, reply)):
                self.pushes.append(message)
            elif message.id == id:
                if isinstance(message, protocol.Error):
                    raise BridgeError(message.code, message.message)
                assert isinstance(message, reply)
                return message, frames

    def send(self, request: protocol.Message) -> int:
        """Sends a request and does not wait. Returns the id that it was given."""
        self._next += 1
        self._socket.send(protocol.encode(msgspec.structs.replace(request, id=self._next)))
        return self._next

    def receive(self, seconds: float) -> tuple[protocol.Message, np.ndarray | None] | None:
        """The next message of the server's, with its frames; None if there is none in time."""
        if not self._socket.poll(max(0, seconds * 1000)):
            return None
        parts = self._socket.recv_multipart(copy=False)
        message = protocol.decode_reply(parts[0].buffer)
        shape = getattr(message, "shape", None)
        frames = np.frombuffer(parts[1].buffer, np.uint8).reshape(shape) if shape is not None else None
        return message, frames

    def close(self) -> None:
        self._context.destroy(0)
