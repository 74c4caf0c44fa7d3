"""Requests by which sessions begin and end: at a scene's start, or going on from another one's past."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.opener import OpenedSession, Opener
from playhead.engine.bridge.server.recordings import RecordedPoint
from playhead.engine.bridge.server.registry import Registry, check_seed, check_steps, session_bytes
from playhead.engine.bridge.server.replies import Replies
from playhead.engine.bridge.server.session_past import Ticks, play_again
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.session import Session, Snapshot
from playhead.engine.work import Work
from playhead.scenes.scene import Scene
from playhead.world.world import World

SEEK_MEMORY = 64 * 2**20
"""Bytes of snapshots and latents that a session keeps which is to be `seekable`."""


@dataclass(frozen=True)
class _Origin:
    """Where a second session begins: at the end of `ticks`, which began at a scene's start with a `seed`.

    `twin` stands there already, if it is not None; `snapshots` are those of the ticks by their number,
    `recorded` is where they are recorded.
    """

    twin: Session | None
    scene: Scene
    seed: int
    ticks: Ticks | None
    snapshots: dict[int, Snapshot]
    recorded: RecordedPoint | None


class OpenHandlers:
    """Their handlers, each by the name of its request. Lives on the server's thread."""

    def __init__(self, registry: Registry, sessions: Sessions, opener: Opener, replies: Replies) -> None:
        self._registry, self._sessions, self._opener, self._replies = registry, sessions, opener, replies

    def open(self, client: KnownClient, request: p.OpenRequest) -> None:
        registry, recordings = self._registry, self._sessions.recordings
        if not registry.worlds:
            raise BridgeError("refused", "this server has one session only; attach to it")
        world = registry.world(request.world)
        scene = registry.scene(world, request.scene)
        seed = check_seed(scene.seed if request.seed is None else request.seed)
        steps = world.steps if request.steps is None else request.steps
        check_steps(world, steps)
        memory = SEEK_MEMORY if request.seekable and recordings.records else 0
        world = registry.place(world, session_bytes(world) + memory, Counter(self._sessions.worlds))

        def make() -> Work[OpenedSession]:
            session = registry.open(world, scene, seed)
            yield
            session.steps = steps
            return OpenedSession(session, recordings.timeline(world, scene, memory))

        self._host(client, request.id, world, scene, request.clock, make, memory)

    def attach(self, client: KnownClient, request: p.AttachRequest) -> None:
        hosted = self._sessions.find(request.session)
        hosted.attached.add(client.token)
        self._replies.opened(client, request.id, hosted)

    def close(self, client: KnownClient, request: p.CloseRequest) -> None:
        hosted = self._sessions.controlled(client, request.session)
        if hosted.public:
            raise BridgeError("refused", "this session is ended by closing its window")
        self._sessions.end(hosted, f"{client.name} closed it", but=client.token)
        self._replies.send(client, p.DoneReply(id=request.id))

    def fork(self, client: KnownClient, request: p.ForkRequest) -> None:
        self._double(client, request.id, request.session, None)

    def branch(self, client: KnownClient, request: p.BranchRequest) -> None:
        self._double(client, request.id, request.session, request.tick)

    def _double(self, client: KnownClient, id: int, name: str, tick: int | None) -> None:
        """Opens a second session that goes on from a tick of this one's past; None: from the present."""
        hosted = self._sessions.controlled(client, name)
        if hosted.public:
            raise BridgeError("refused", "the session of a window cannot be doubled; serve has its own")
        world, scene, recordings = hosted.world, hosted.scene, self._sessions.recordings

        def look(session: Session) -> _Origin:
            ticks, timeline = hosted.ticks(), hosted.loop.timeline
            if tick and (ticks is None or tick > len(ticks)):
                raise BridgeError("bad_value", f"tick {tick} is not in this session's past")
            at = session.tick if tick is None else tick
            twin = session.fork() if tick is None else None
            ticks = ticks if tick is None else (ticks or [])[:tick]
            recorded = recordings.origin(timeline, at)
            return _Origin(twin, session.scene or scene, session.seed, ticks, hosted.past.until(at), recorded)

        def make(origin: _Origin) -> Work[OpenedSession]:
            session, recorded, begins = origin.twin, origin.recorded, origin.scene
            if session is None:
                session = (
                    Session.unstarted(world, begins.context, begins)
                    if origin.snapshots
                    else self._registry.open(world, begins, origin.seed)
                )
                yield from play_again(session, begins, origin.seed, origin.ticks or [], origin.snapshots)
            timeline = (yield from recordings.twin(recorded, world, scene)) if recorded else None
            return OpenedSession(session, timeline, origin.ticks, origin.snapshots)

        def host(origin: _Origin) -> None:
            self._host(client, id, world, scene, hosted.clock, lambda: make(origin))

        self._replies.then(client, id, hosted.loop.ask(look), host)

    def _host(
        self,
        client: KnownClient,
        id: int,
        world: World,
        scene: Scene,
        clock: p.Clock,
        make: Callable[[], Work[OpenedSession]],
        seek_memory: int = 0,
    ) -> None:
        """Opens a session of a client's, and answers with what it is."""

        def opened(future: "Future[HostedSession]") -> None:
            error = future.exception()
            if error is not None:
                self._replies.refuse(client, id, error)
            else:
                self._replies.opened(client, id, future.result())

        self._opener.open(client.token, world, scene, clock, make, opened, seek_memory)
