"""Makes sessions for clients, on a thread of its own, as far as the limits go."""

import secrets
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from playhead.engine.bridge.server.acts import ActSource
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.lease import Lease
from playhead.engine.bridge.server.registry import Registry, session_bytes
from playhead.engine.bridge.server.session_past import MEMORY, MOST, SessionPast, Ticks
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.server.slices import Slices
from playhead.engine.bridge.wire.protocol import BridgeError, Clock
from playhead.engine.loop import Loop
from playhead.engine.session import Session, Snapshot
from playhead.engine.work import Work

if TYPE_CHECKING:
    from playhead.engine.timeline.timeline import Timeline
    from playhead.scenes.scene import Scene
    from playhead.world.world import World

OPENING, OPENING_EACH = 32, 8
"""Sessions that are being opened at once, at the most: for all clients, and for each."""


@dataclass(frozen=True)
class OpenedSession:
    """A session that is ready to be hosted, where it is recorded, and the past that it has already."""

    session: Session
    timeline: "Timeline | None" = None
    past: Ticks | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)


class Opener:
    """Opens sessions and has them taken in. Lives on the server's thread.

    `opening`: how many are under way.
    """

    def __init__(
        self, registry: Registry, sessions: Sessions, post: Callable[[Callable[[], None]], None]
    ) -> None:
        """`post` has something called on the server's thread."""
        self._registry, self._sessions, self._post = registry, sessions, post
        self._slices = Slices("opener")
        self.opening = 0

    def open(
        self,
        client: str,
        world: "World",
        scene: "Scene",
        clock: Clock,
        make: "Callable[[], Work[OpenedSession]]",
        then: "Callable[[Future[HostedSession]], None]",
        seek_memory: int = 0,
        id: str = "",
    ) -> None:
        """Hosts the session that `make` makes, slice by slice, and calls `then`. `id`: what it is called.

        It is given up where its client's connection is lost. `seek_memory`: bytes that its timeline keeps
        beside. Raises BridgeError where no further one fits.
        """
        sessions = self._sessions
        if self.opening >= OPENING or self._slices.count(client) >= OPENING_EACH:
            raise BridgeError("busy", "other sessions are being opened; try again in a moment")
        sessions.check_room(self.opening)
        size = session_bytes(world)
        reserved = size + seek_memory
        sessions.check_memory(reserved)
        self.opening += 1
        sessions.reserved += reserved
        self._registry.placement.begin(world, reserved)

        def host() -> Generator[None, None, HostedSession]:
            begun = yield from make()
            acts = ActSource()
            batcher = self._registry.batcher(world)
            lockstep = clock == "lockstep"
            timeline = begun.timeline
            loop = Loop(lambda: begun.session, acts, lockstep=lockstep, timeline=timeline, stepper=batcher)
            loop.world = world
            past = SessionPast(min(MOST, MEMORY // size), begun.past, begun.snapshots)
            name, lease = id or secrets.token_urlsafe(12), Lease(client, client)
            return HostedSession(
                name, scene, loop, acts, lease, clock, past, seek_memory=seek_memory,
                restored=begun.past is not None,
            )  # fmt: skip

        def opened(future: "Future[HostedSession]") -> None:
            self.opening -= 1
            sessions.reserved -= reserved
            self._registry.placement.opened(world, reserved)
            if future.exception() is None:
                sessions.add(future.result())
                future.result().loop.start()
            then(future)

        self._slices.submit(client, host()).add_done_callback(lambda f: self._post(lambda: opened(f)))

    def cancel(self, client: str) -> None:
        """Gives up what is being opened for a client."""
        self._slices.cancel(client)

    def close(self) -> None:
        """Gives up all that is being opened."""
        self._slices.close()

    def wait(self, seconds: float) -> None:
        """Waits for the end, at most so long."""
        self._slices.wait(seconds)
