"""The connections of a server: who speaks by each, how often it may, and how much it has left unread."""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator

import numpy as np
import zmq
from zmq.utils.monitor import parse_monitor_message

from playhead.engine.bridge.server.connection import Connection, KnownClient
from playhead.engine.bridge.server.limits import Limits, RateLimit
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.protocol import LOCAL, BridgeError, HelloRequest
from playhead.world.terminal import printable

COPIED = 256 * 1024
"""Bytes of frames up to which they are copied as they are sent. Larger ones are sent from where they lie: a
thread of pyzmq's has to give these back, which costs milliseconds now and then."""


class SocketConnection(Connection):
    """A connection of a ROUTER socket: ZeroMQ's name for it, and the descriptor of its TCP connection."""

    def __init__(
        self, router: zmq.Socket[bytes], route: bytes, fd: int, allowance: RateLimit, frames_port: int
    ) -> None:
        super().__init__(allowance, frames_port)
        self.route, self.fd, self._router = route, fd, router
        self._sent: list[tuple[zmq.MessageTracker, int]] = []

    @property
    def unread(self) -> int:
        self._sent = [(tracker, size) for tracker, size in self._sent if not tracker.done]
        return sum(size for _, size in self._sent)

    def write(self, message: protocol.Message, frames: np.ndarray | None = None) -> bool:
        parts = [self.route, protocol.encode(message)]
        try:
            if frames is None:
                self._router.send_multipart(parts, zmq.NOBLOCK)
                return True
            self._router.send_multipart(parts, zmq.NOBLOCK | zmq.SNDMORE)
            data = np.ascontiguousarray(frames).data
            tracker = self._router.send(data, zmq.NOBLOCK, copy=False, track=True)
            assert isinstance(tracker, zmq.MessageTracker)
            self._sent.append((tracker, frames.nbytes))
        except zmq.ZMQError:  # its queue is full, or it is gone
            return False
        return True

    def cut(self) -> None:
        cut(self.fd)


class Connections:
    """All connections, those of a ROUTER socket and others that `join`, and the clients who speak by them.

    Lives on the server's thread. `frames_port`: where frames are published for those of the socket.
    """

    def __init__(
        self, router: zmq.Socket[bytes], limits: Limits, lost: Callable[[KnownClient], None]
    ) -> None:
        """`lost` is told of a client whose connection is gone."""
        self._limits, self._lost = limits, lost
        self._by_route: dict[bytes, SocketConnection] = {}
        self._joined: set[Connection] = set()
        self.frames_port = 0
        self.clients: dict[str, KnownClient] = {}
        self.monitor = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._router = router
        router.router_mandatory = True
        router.copy_threshold = COPIED

    def find(self, route: bytes, fd: int) -> Connection:
        """The connection that a request came by."""
        found = self._by_route.get(route)
        if found is None:
            self.watch()  # an older connection of the same number is gone by now, and has to go here first
            allowance = RateLimit(self._limits.rate)
            found = SocketConnection(self._router, route, fd, allowance, self.frames_port)
            self._by_route[route] = found
        found.last_used = time.monotonic()
        return found

    def join(self, connection: Connection) -> None:
        """Takes in a connection of another door than the socket."""
        self._joined.add(connection)

    def part(self, connection: Connection) -> None:
        """Takes note that such a connection is gone."""
        self._joined.discard(connection)
        if connection.client is not None:
            self.lose(connection.client)

    def welcome(self, hello: HelloRequest, connection: Connection) -> KnownClient:
        """The client that says hello: a new one, one that comes back, or the one that said it before."""
        client = self.clients.get(hello.resume) or connection.client
        if client is None:
            if len(self.clients) >= self._limits.clients:
                raise BridgeError("limit", "too many clients are connected; try again later")
            client = KnownClient(secrets.token_urlsafe(16), hello.client)
            self.clients[client.token] = client
        if connection.client is not None and connection.client is not client:
            self.lose(connection.client)
        if client.connection is not None:
            client.connection.client = None
        client.name = printable(hello.client, 40).strip() or "somebody"
        client.connection, connection.client = connection, client
        return client

    def lose(self, client: KnownClient) -> None:
        """Takes its connection from a client; nothing is sent to it until it comes back."""
        if client.connection is not None:
            client.connection.client = None
            client.connection, client.last_used = None, time.monotonic()
            self._lost(client)

    def send(self, client: KnownClient, message: protocol.Message, frames: np.ndarray | None = None) -> None:
        """Sends a message and, behind it, frames. A client that reads nothing is cut off."""
        if client.connection is not None:
            self.answer(client.connection, message, frames)

    def tell(self, token: str, message: protocol.Message) -> None:
        """Sends a message to a client, if there still is one of that token."""
        if token in self.clients:
            self.send(self.clients[token], message)

    def answer(
        self, connection: Connection, message: protocol.Message, frames: np.ndarray | None = None
    ) -> None:
        """As `send`, to whoever a request came from."""
        if frames is not None:
            self._check_unread(connection)
        if not connection.write(message, frames):
            self._cut(connection)

    def name(self, token: str) -> str:
        """What a holder of the control is called."""
        return self.clients[token].name if token in self.clients else token and LOCAL

    def _cut(self, connection: Connection) -> None:
        """Ends a connection, and with it all that waits to be read there."""
        self.watch()
        if connection in self._joined or connection in self._by_route.values():
            connection.cut()
        if connection.client is not None:
            self.lose(connection.client)

    def _check_unread(self, connection: Connection) -> None:
        """Cuts a connection that leaves too much unread, or the worst where all together do."""
        unread = connection.unread
        if unread > self._limits.unread:
            self._cut(connection)
            return
        everybody = [*self._by_route.values(), *self._joined]
        if unread and sum(c.unread for c in everybody) > self._limits.waiting:
            self._cut(max(everybody, key=lambda c: c.unread))

    def watch(self) -> None:
        """Takes note at once of connections that have ended."""
        for fd in ended(self.monitor):
            for connection in [c for c in self._by_route.values() if c.fd == fd]:
                del self._by_route[connection.route]
                if connection.client is not None:
                    self.lose(connection.client)

    def sweep(self, owners: set[str]) -> None:
        """Forgets clients that are gone: after a while, or soon where they own no session."""
        now = time.monotonic()
        for client in list(self.clients.values()):
            patience = self._limits.idle if client.token in owners else 5.0
            if client.connection is None and now - client.last_used > patience:
                del self.clients[client.token]
        for connection in list(self._by_route.values()):
            if connection.client is None and now - connection.last_used > 5:
                del self._by_route[connection.route]
        for joined in list(self._joined):
            if joined.client is None and now - joined.last_used > 5:
                joined.cut()

    def close(self) -> None:
        self._router.disable_monitor()


def ended(monitor: zmq.Socket[bytes]) -> Iterator[int]:
    """The sockets of connections that have ended since the last look, as a monitor tells."""
    while monitor.poll(0):
        yield parse_monitor_message(monitor.recv_multipart())["value"]


def cut(fd: int) -> None:
    """Shuts a TCP connection down, so that ZeroMQ gives it up and all that waits for it."""
    with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(fd)) as line:  # gone already
        line.shutdown(socket.SHUT_RDWR)
