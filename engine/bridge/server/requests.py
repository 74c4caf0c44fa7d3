"""Which request is carried out by what."""

import time
from collections.abc import Callable
from typing import Any

from playhead.engine.bridge.server.connections import Client, Connection, Connections
from playhead.engine.bridge.server.open_requests import OpenRequests
from playhead.engine.bridge.server.opener import Opener
from playhead.engine.bridge.server.play_requests import PlayRequests
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.replies import Replies
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.server.slices import Slices
from playhead.engine.bridge.server.state_requests import StateRequests
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError

Handler = Callable[[Client, Any], None]
"""Carries out a request of its type. Raises BridgeError for what is refused at once."""


class Requests:
    """Hands each request to the handler of its type. Lives on the server's thread."""

    def __init__(
        self,
        registry: Registry,
        connections: Connections,
        sessions: Sessions,
        opener: Opener,
        saver: Slices,
        post: Callable[[Callable[[], None]], None],
        frames_port: int,
    ) -> None:
        """`post` has something called on the server's thread; `frames_port` is where frames are published."""
        self._registry, self._connections, self._sessions = registry, connections, sessions
        self._frames_port = frames_port
        replies = Replies(connections, registry, post)
        opening = OpenRequests(registry, sessions, opener, replies)
        playing = PlayRequests(sessions, replies)
        states = StateRequests(registry, sessions, saver, replies)
        self._handlers: dict[type[p.Message], Handler] = {
            p.Ping: self._ping,
            p.Worlds: self._worlds,
            p.Open: opening.open,
            p.Attach: opening.attach,
            p.Close: opening.close,
            p.Fork: opening.fork,
            p.Branch: opening.branch,
            p.Step: playing.step,
            p.Act: playing.act,
            p.Observe: playing.observe,
            p.Stats: playing.stats,
            p.Control: playing.control,
            p.Tune: playing.tune,
            p.Reset: states.reset,
            p.Snapshot: states.snapshot,
            p.Restore: states.restore,
            p.Save: states.save,
        }

    def handle(self, connection: Connection, request: p.Message) -> None:
        """Raises BridgeError for what is refused at once."""
        if isinstance(request, p.Hello):  # which alone is a connection's, and makes it a client's
            self._hello(connection, request)
            return
        client = connection.client
        if client is None:
            raise BridgeError("hello_first", "the first request of a connection is hello")
        client.last_used = time.monotonic()
        self._handlers[type(request)](client, request)

    def _hello(self, connection: Connection, request: p.Hello) -> None:
        if p.VERSION not in request.protocol:
            raise BridgeError("protocol", f"this server speaks version {p.VERSION} of the protocol")
        client = self._connections.welcome(request, connection)
        self._connections.send(client, p.Welcome(
            id=request.id, protocol=p.VERSION, server="Playhead", token=client.token,
            frames_port=self._frames_port, sessions=[h.id for h in self._sessions if h.public],
        ))  # fmt: skip

    def _ping(self, client: Client, request: p.Ping) -> None:
        self._connections.send(client, p.Pong(id=request.id))

    def _worlds(self, client: Client, request: p.Worlds) -> None:
        self._connections.send(client, p.WorldList(id=request.id, worlds=self._registry.list()))
