"""Which request is carried out by what."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from playhead.engine.bridge.server.connection import Connection, KnownClient
from playhead.engine.bridge.server.connections import Connections
from playhead.engine.bridge.server.moment_handlers import MomentHandlers
from playhead.engine.bridge.server.open_handlers import OpenHandlers
from playhead.engine.bridge.server.opener import Opener
from playhead.engine.bridge.server.play_handlers import PlayHandlers
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.replies import Replies
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.server.slices import Slices
from playhead.engine.bridge.server.state_handlers import StateHandlers
from playhead.engine.bridge.wire import moment_messages as m
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError

Handler = Callable[[KnownClient, Any], None]
"""Carries out a request of its type. Raises BridgeError for what is refused at once."""


FindHost = Callable[[str, str], "Future[Any]"]
"""Finds a server that plays a session, or a new one where that is empty, for the token of its owner.

What it finds has an `address` and a public `key`, which is empty where none is needed.
"""


class Dispatcher:
    """Hands each request to the handler of its type. Lives on the server's thread."""

    def __init__(
        self,
        registry: Registry,
        connections: Connections,
        sessions: Sessions,
        opener: Opener,
        saver: Slices,
        post: Callable[[Callable[[], None]], None],
        find_host: FindHost | None = None,
    ) -> None:
        """`post` has something called on the server's thread; `find_host` as `Server` has it."""
        self._registry, self._connections, self._sessions = registry, connections, sessions
        self._find_host = find_host
        self._replies = replies = Replies(connections, registry, post)
        opening = OpenHandlers(registry, sessions, opener, replies)
        playing = PlayHandlers(sessions, replies)
        moments = MomentHandlers(sessions, replies)
        states = StateHandlers(registry, sessions, saver, replies)
        self._handlers: dict[type[p.Message], Handler] = {
            p.PingRequest: self._ping,
            p.HostRequest: self._host,
            p.WorldsRequest: self._worlds,
            p.OpenRequest: opening.open,
            p.AttachRequest: opening.attach,
            p.CloseRequest: opening.close,
            p.ForkRequest: opening.fork,
            p.BranchRequest: opening.branch,
            p.StepRequest: playing.step,
            p.ActRequest: playing.act,
            p.ObserveRequest: playing.observe,
            p.StatsRequest: playing.stats,
            p.ControlRequest: playing.control,
            p.TuneRequest: playing.tune,
            p.ResetRequest: states.reset,
            p.SnapshotRequest: states.snapshot,
            p.RestoreRequest: states.restore,
            p.SaveRequest: states.save,
            m.TimelineRequest: moments.timeline,
            m.SeekRequest: moments.seek,
            m.PictureRequest: moments.picture,
            m.BookmarkRequest: moments.bookmark,
        }

    def handle(self, connection: Connection, request: p.Message) -> None:
        """Raises BridgeError for what is refused at once."""
        if isinstance(request, p.HelloRequest):  # which alone is a connection's, and makes it a client's
            self._hello(connection, request)
            return
        client = connection.client
        if client is None:
            raise BridgeError("hello_first", "the first request of a connection is hello")
        client.last_used = time.monotonic()
        self._handlers[type(request)](client, request)

    def _hello(self, connection: Connection, request: p.HelloRequest) -> None:
        if p.VERSION not in request.protocol:
            raise BridgeError("protocol", f"this server speaks version {p.VERSION} of the protocol")
        client = self._connections.welcome(request, connection)
        self._connections.send(client, p.WelcomeReply(
            id=request.id, protocol=p.VERSION, server="Playhead", token=client.token,
            frames_port=connection.frames_port, sessions=[h.id for h in self._sessions if h.public],
            hosts=self._find_host is not None,
        ))  # fmt: skip

    def _host(self, client: KnownClient, request: p.HostRequest) -> None:
        if self._find_host is None:
            raise BridgeError("refused", "sessions are played here; open one")

        def found(host: Any) -> None:  # noqa: ANN401 - of whatever kind the finder's are
            reply = p.HostReply(id=request.id, address=host.address, key=host.key)
            self._connections.send(client, reply)

        asked = self._find_host(request.session, request.resume)
        self._replies.then(client, request.id, asked, found)

    def _ping(self, client: KnownClient, request: p.PingRequest) -> None:
        self._connections.send(client, p.PongReply(id=request.id))

    def _worlds(self, client: KnownClient, request: p.WorldsRequest) -> None:
        self._connections.send(client, p.WorldsReply(id=request.id, worlds=self._registry.list()))
