"""Makes sessions for clients, on a thread of its own, as far as the limits go."""

import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from engine.bridge.acts import ActSource
from engine.bridge.hall import session_bytes
from engine.bridge.hosted import History, Hosted
from engine.bridge.lease import Lease
from engine.bridge.protocol import BridgeError, Clock
from engine.loop import Loop
from engine.session import Session

if TYPE_CHECKING:
    from engine.bridge.server import Server
    from engine.timeline.timeline import Timeline
    from scenes.scene import Scene
    from world.world import World

Answer = TypeVar("Answer")
OPENING = 8
"""Sessions that are being opened at once, at the most."""


class Opener:
    """Opens sessions and takes them in. Lives on the server's thread."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._thread = ThreadPoolExecutor(1, "opener")
        self._opening = 0
        self._reserved = 0

    def check_memory(self, more: int) -> None:
        """Raises BridgeError where so many bytes more would be more than the server lends out."""
        limit = self._server.limits.memory
        held = sum(
            session_bytes(h.loop.world) * (1 + len(h.snapshots) + h.keeping)
            for h in self._server.hosted.values() if h.loop.world is not None
        )  # fmt: skip
        if held + self._reserved + more > limit * 2**20:
            raise BridgeError("limit", f"the {limit} MB for sessions and snapshots are used up; close some")

    def open(
        self,
        client: str,
        world: "World",
        scene: "Scene",
        clock: Clock,
        make: "Callable[[Timeline | None], tuple[Session, History | None]]",
        then: "Callable[[Future[Hosted]], None]",
    ) -> None:
        """Hosts the session that `make` returns, with its past (None: a new one) and calls `then`.

        `make` is told where the session is recorded, and records the past there.

        Raises BridgeError where no further one fits.
        """
        if self._opening >= OPENING:
            raise BridgeError("busy", "other sessions are being opened; try again in a moment")
        self._make_room()
        size = session_bytes(world)
        self.check_memory(size)
        self._opening += 1
        self._reserved += size

        def host() -> Hosted:
            timeline = self._server.keeping.timeline(world, scene)
            session, past = make(timeline)
            acts = ActSource()
            company = self._server.hall.companies[world.config.name]
            lockstep = clock == "lockstep"
            loop = Loop(lambda: session, acts, lockstep=lockstep, timeline=timeline, stepper=company)
            loop.world = world
            hosted = Hosted(secrets.token_urlsafe(12), scene, loop, acts, Lease(client, client), clock)
            hosted.begin_from(past)
            return hosted

        def opened(future: "Future[Hosted]") -> None:
            self._opening -= 1
            self._reserved -= size
            if future.exception() is None:
                self._server.add(future.result())
                future.result().loop.start()
            then(future)

        self._thread.submit(host).add_done_callback(lambda f: self._server.post(lambda: opened(f)))

    def later(self, work: "Callable[[], Answer]") -> "Future[Answer]":
        """Has something done that takes its time."""
        return self._thread.submit(work)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _make_room(self) -> None:
        """Raises BridgeError where no further session fits; one whose client is gone may have to go."""
        server, most = self._server, self._server.limits.sessions
        if len(server.hosted) + self._opening < most:
            return
        clients = server.connections.clients
        orphans = [
            h for h in server.hosted.values()
            if not h.public and (h.lease.owner not in clients or clients[h.lease.owner].connection is None)
        ]  # fmt: skip
        if not orphans:
            raise BridgeError("limit", f"{most} sessions are open, which is all; close one")
        server.end(min(orphans, key=lambda h: h.last_used), "another client needed its place")
