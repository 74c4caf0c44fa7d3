"""Makes sessions for clients, on a thread of its own, as far as the limits go."""

import secrets
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from playhead.engine.bridge.server.acts import ActSource
from playhead.engine.bridge.server.hosted import Hosted
from playhead.engine.bridge.server.lease import Lease
from playhead.engine.bridge.server.past import MEMORY, MOST, Past, Ticks
from playhead.engine.bridge.server.registry import session_bytes
from playhead.engine.bridge.server.slices import Slices
from playhead.engine.bridge.wire.protocol import BridgeError, Clock
from playhead.engine.loop import Loop
from playhead.engine.session import Session, Snapshot
from playhead.engine.work import Work

if TYPE_CHECKING:
    from playhead.engine.bridge.server.server import Server
    from playhead.engine.timeline.timeline import Timeline
    from playhead.scenes.scene import Scene
    from playhead.world.world import World

OPENING, OPENING_EACH = 32, 8
"""Sessions that are being opened at once, at the most: for all clients, and for each."""


@dataclass(frozen=True)
class Beginning:
    """A session that is ready to be hosted, where it is recorded, and the past that it has already."""

    session: Session
    timeline: "Timeline | None" = None
    past: Ticks | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)


class Opener:
    """Opens sessions and takes them in. Lives on the server's thread."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._slices = Slices("opener")
        self._opening = 0
        self._reserved = 0

    def check_memory(self, more: int) -> None:
        """Raises BridgeError where so many bytes more would be more than the server lends out.

        Snapshots that only make branches quick are let go first.
        """
        limit = self._server.limits.memory
        if self._fits(more):
            return
        for hosted in self._server.hosted.values():
            hosted.past.forget()
        if not self._fits(more):
            raise BridgeError("limit", f"the {limit} MB for sessions and snapshots are used up; close some")

    def keep_past(self, hosted: Hosted) -> None:
        """Has a snapshot of a session's present kept for branches, if there is room for it."""
        world = hosted.loop.world
        if world is not None and hosted.id in self._server.hosted and self._fits(session_bytes(world)):
            hosted.loop.ask(hosted.keep_past)

    def _fits(self, more: int) -> bool:
        held = sum(
            session_bytes(h.loop.world) * (1 + len(h.snapshots) + h.keeping + len(h.past))
            for h in self._server.hosted.values() if h.loop.world is not None
        )  # fmt: skip
        return held + self._reserved + more <= self._server.limits.memory * 2**20

    def open(
        self,
        client: str,
        world: "World",
        scene: "Scene",
        clock: Clock,
        make: "Callable[[], Work[Beginning]]",
        then: "Callable[[Future[Hosted]], None]",
    ) -> None:
        """Hosts the session that `make` makes, slice by slice, and calls `then`.

        It is given up where its client's connection is lost. Raises BridgeError where no further one fits.
        """
        if self._opening >= OPENING or self._slices.count(client) >= OPENING_EACH:
            raise BridgeError("busy", "other sessions are being opened; try again in a moment")
        self._make_room()
        size = session_bytes(world)
        self.check_memory(size)
        self._opening += 1
        self._reserved += size

        def host() -> Generator[None, None, Hosted]:
            begun = yield from make()
            acts = ActSource()
            company = self._server.hall.companies[world.config.name]
            lockstep = clock == "lockstep"
            timeline = begun.timeline
            loop = Loop(lambda: begun.session, acts, lockstep=lockstep, timeline=timeline, stepper=company)
            loop.world = world
            past = Past(min(MOST, MEMORY // size), begun.past, begun.snapshots)
            lease = Lease(client, client)
            restored = begun.past is not None
            return Hosted(secrets.token_urlsafe(12), scene, loop, acts, lease, clock, past, restored=restored)

        def opened(future: "Future[Hosted]") -> None:
            self._opening -= 1
            self._reserved -= size
            if future.exception() is None:
                self._server.add(future.result())
                future.result().loop.start()
            then(future)

        self._slices.submit(client, host()).add_done_callback(lambda f: self._server.post(lambda: opened(f)))

    def cancel(self, client: str) -> None:
        """Gives up what is being opened for a client."""
        self._slices.cancel(client)

    def close(self) -> None:
        """Gives up all that is being opened."""
        self._slices.close()

    def wait(self, seconds: float) -> None:
        """Waits for the end, at most so long."""
        self._slices.wait(seconds)

    def _make_room(self) -> None:
        """Raises BridgeError where no further session fits. Those that wait for their clients stay."""
        server, most = self._server, self._server.limits.sessions
        if len(server.hosted) + self._opening >= most:
            raise BridgeError("limit", f"{most} sessions are open, which is all; close one")
