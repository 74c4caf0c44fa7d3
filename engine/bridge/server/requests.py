"""What the server does for each request."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from playhead.engine.bridge.server.hosted import Hosted, Kept
from playhead.engine.bridge.server.lease import LOCAL
from playhead.engine.bridge.server.opener import Beginning
from playhead.engine.bridge.server.past import Ticks
from playhead.engine.bridge.server.registry import check_seed, scene_info, session_bytes
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.session import Session, Snapshot
from playhead.engine.tick import Tick
from playhead.engine.work import Work
from playhead.scenes.scene import Scene
from playhead.world.errors import PlayheadError

if TYPE_CHECKING:
    from playhead.engine.bridge.server.connections import Client, Connection
    from playhead.engine.bridge.server.recordings import Recorded
    from playhead.engine.bridge.server.server import Server
    from playhead.world.world import World

WAITING_STEPS = 4
"""Requests to step that a session lets wait."""


@dataclass(frozen=True)
class _Origin:
    """Where a second session begins: one that stands there, or (None) the scene's start with a `seed`.

    `way` is what is to be played from there on, `past` all since the start, `snapshots` those of the way by
    their tick, `recorded` where it is recorded.
    """

    session: Session | None
    way: Ticks
    past: Ticks | None
    snapshots: dict[int, Snapshot]
    recorded: "Recorded | None"
    seed: int = 0


class Requests:
    """Carries requests out, each by the method of its name. Lives on the server's thread."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    def handle(self, connection: "Connection", request: p.Message) -> None:
        """Raises BridgeError for what is refused at once."""
        if isinstance(request, p.Hello):
            self._hello(connection, request)
            return
        client = connection.client
        if client is None:
            raise BridgeError("hello_first", "the first request of a connection is hello")
        client.last_used = time.monotonic()
        getattr(self, f"_{type(request).__name__.lower()}")(client, request)

    def _hello(self, connection: "Connection", request: p.Hello) -> None:
        if p.VERSION not in request.protocol:
            raise BridgeError("protocol", f"this server speaks version {p.VERSION} of the protocol")
        server = self._server
        client = server.connections.welcome(request, connection)
        server.send(client, p.Welcome(
            id=request.id, protocol=p.VERSION, server="Playhead", token=client.token,
            frames_port=server.frames_port, sessions=[h.id for h in server.hosted.values() if h.public],
        ))  # fmt: skip

    def _ping(self, client: "Client", request: p.Ping) -> None:
        self._server.send(client, p.Pong(id=request.id))

    def _worlds(self, client: "Client", request: p.Worlds) -> None:
        self._server.send(client, p.WorldList(id=request.id, worlds=self._server.hall.list()))

    def _open(self, client: "Client", request: p.Open) -> None:
        hall = self._server.hall
        if not hall.worlds:
            raise BridgeError("refused", "this server has one session only; attach to it")
        world = hall.world(request.world)
        scene = hall.scene(world, request.scene)
        seed = check_seed(scene.seed if request.seed is None else request.seed)
        steps = world.steps if request.steps is None else request.steps
        self._check_steps(world, steps)

        def make() -> Work[Beginning]:
            session = hall.open(world, scene, seed)
            yield
            session.steps = steps
            return Beginning(session, self._server.keeping.timeline(world, scene))

        self._host(client, request.id, world, scene, request.clock, make)

    def _attach(self, client: "Client", request: p.Attach) -> None:
        hosted = self._find(request.session)
        hosted.attached.add(client.token)
        self._describe(client, request.id, hosted)

    def _close(self, client: "Client", request: p.Close) -> None:
        hosted = self._controlled(client, request.session)
        if hosted.public:
            raise BridgeError("refused", "this session is ended by closing its window")
        self._server.end(hosted, f"{client.name} closed it", but=client.token)
        self._server.send(client, p.Done(id=request.id))

    def _reset(self, client: "Client", request: p.Reset) -> None:
        hosted, hall = self._controlled(client, request.session), self._server.hall
        seed = None if request.seed is None else check_seed(request.seed)
        reply: Future[object]
        if hosted.public:
            if request.scene:
                raise BridgeError("refused", "the scene of this session is chosen in its window")
            scene = hosted.scene
            reply = hosted.loop.ask(lambda s: s.reset(s.seed if seed is None else seed), begins=True)
        else:
            scene = (
                hall.scene(hall.world(hosted.scene.world), request.scene) if request.scene else hosted.scene
            )
            reply = hosted.loop.ask(
                lambda s: hall.start(s, scene, s.seed if seed is None else seed), begins=True
            )

        def done(_: object) -> None:
            hosted.scene = scene
            self._observed(client, request.id, hosted)

        self._then(client, request.id, reply, done)

    def _step(self, client: "Client", request: p.Step) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        if hosted.clock != "lockstep":
            raise BridgeError("wrong_clock", "the session is live; use act, or tune its clock to lockstep")
        if hosted.waiting_steps >= WAITING_STEPS:
            raise BridgeError("busy", f"{WAITING_STEPS} steps wait already; wait for their replies")
        hosted.waiting_steps += 1
        kept: list[np.ndarray] = []
        count = 0

        def each(tick: Tick, seconds: float) -> None:
            nonlocal count
            count += 1
            last = count == len(request.actions)
            if request.frames == "all" or (request.frames == "last" and last):
                kept.append(tick.frames)
            if last:
                server.post(lambda: reply(tick.number, seconds))

        def reply(number: int, seconds: float) -> None:
            hosted.waiting_steps -= 1
            hosted.last_used = time.monotonic()
            frames = (kept[0] if len(kept) == 1 else np.concatenate(kept)) if kept else None
            server.send(client, p.Stepped(
                id=request.id, session=hosted.id, first=number - len(request.actions) + 1, tick=number,
                tick_seconds=seconds, shape=None if frames is None else frames.shape,
            ), frames)  # fmt: skip

        def failed(error: BaseException) -> None:
            hosted.waiting_steps -= 1
            server.send(client, server.error(request.id, error))

        def ended(future: "Future[None]") -> None:
            error = future.exception()
            if error is not None and count < len(request.actions):
                server.post(lambda: failed(error))

        hosted.loop.step(request.actions, each, "bridge").add_done_callback(ended)

    def _act(self, client: "Client", request: p.Act) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        if hosted.clock != "live":
            raise BridgeError("wrong_clock", "the session is in lockstep; use step, or tune it to live")
        self._world(hosted).config.action.check(request.action)
        lost = hosted.acts.act(client.token, request)
        server.send(client, p.Received(id=request.id, session=hosted.id))
        for token, act in lost:
            server.tell(token, p.Superseded(id=act.id, session=hosted.id))

    def _observe(self, client: "Client", request: p.Observe) -> None:
        self._observed(client, request.id, self._find(request.session))

    def _snapshot(self, client: "Client", request: p.Snapshot) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        full = len(hosted.snapshots) + hosted.keeping >= server.limits.snapshots
        if not full:
            server.opener.check_memory(session_bytes(self._world(hosted)))
        elif not hosted.snapshots:
            raise BridgeError("busy", "other snapshots are being taken; wait for their replies")
        else:
            del hosted.snapshots[next(iter(hosted.snapshots))]
        hosted.keeping += 1
        name = secrets.token_urlsafe(8)

        def done(future: "Future[Kept]") -> None:
            hosted.keeping -= 1
            if future.exception() is None:
                hosted.snapshots[name] = future.result()

        def reply(kept: Kept) -> None:
            tick = kept.snapshot.tick
            server.send(client, p.Snapshotted(id=request.id, session=hosted.id, snapshot=name, tick=tick))

        asked = hosted.loop.ask(hosted.keep)
        asked.add_done_callback(lambda future: server.post(lambda: done(future)))
        self._then(client, request.id, asked, reply)

    def _restore(self, client: "Client", request: p.Restore) -> None:
        hosted = self._controlled(client, request.session)
        kept = hosted.snapshots.get(request.snapshot)
        if kept is None:
            raise BridgeError("unknown_snapshot", f"no snapshot `{request.snapshot}` is kept; take one first")
        reply = hosted.loop.ask(lambda session: hosted.restore(session, kept), begins=True)
        self._then(client, request.id, reply, lambda _: self._observed(client, request.id, hosted))

    def _fork(self, client: "Client", request: p.Fork) -> None:
        self._double(client, request.id, self._doubled(client, request.session), None)

    def _branch(self, client: "Client", request: p.Branch) -> None:
        self._double(client, request.id, self._doubled(client, request.session), request.tick)

    def _double(self, client: "Client", id: int, hosted: Hosted, tick: int | None) -> None:
        """Opens a second session that goes on from a tick of this one's past; None: from the present."""
        world, scene, keeping = self._world(hosted), hosted.scene, self._server.keeping

        def look(session: Session) -> _Origin:
            ticks, timeline = hosted.ticks(), hosted.loop.timeline
            if tick and (ticks is None or tick > len(ticks)):
                raise BridgeError("bad_value", f"tick {tick} is not in this session's past")
            recorded = keeping.origin(timeline, session.tick if tick is None else tick)
            known = hosted.past.until(session.tick if tick is None else tick)
            if tick is None:
                return _Origin(session.fork(), [], ticks, known, recorded)
            ticks, near = (ticks or [])[:tick], max(known, default=0)
            if not near:
                return _Origin(None, ticks, ticks, known, recorded, session.seed)
            twin = Session.unstarted(world, session.context, session.scene)
            twin.restore(known[near])
            return _Origin(twin, ticks[near:], ticks, known, recorded)

        def make(origin: _Origin) -> Work[Beginning]:
            session = origin.session
            if session is None:
                session = self._server.hall.open(world, scene, origin.seed)
            for action, steps in origin.way:
                session.steps = steps
                session.step(action)
                yield
            session.finish()
            timeline = (yield from keeping.twin(origin.recorded, world, scene)) if origin.recorded else None
            return Beginning(session, timeline, origin.past, origin.snapshots)

        def host(origin: _Origin) -> None:
            self._host(client, id, world, scene, hosted.clock, lambda: make(origin))

        self._then(client, id, hosted.loop.ask(look), host)

    def _save(self, client: "Client", request: p.Save) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        timeline = hosted.loop.timeline
        server.keeping.check(timeline)
        assert timeline is not None and timeline.recorder is not None  # else it was refused
        recorder = timeline.recorder

        def saved(found: tuple[str, int]) -> None:
            file, ticks = found
            server.send(client, p.Saved(id=request.id, session=hosted.id, file=file, ticks=ticks))

        def written(_: object) -> None:
            save = server.keeping.save(timeline, request.name)
            self._then(client, request.id, server.saver.submit(client.token, save), saved)

        self._then(client, request.id, hosted.loop.ask(lambda _: recorder.flush()), written)

    def _stats(self, client: "Client", request: p.Stats) -> None:
        hosted = self._find(request.session)
        stats = msgspec.to_builtins(hosted.loop.stats) if hosted.loop.stats else {}
        self._server.send(client, p.Figures(id=request.id, session=hosted.id, stats=stats))

    def _control(self, client: "Client", request: p.Control) -> None:
        hosted, server = self._find(request.session), self._server
        before = replace(hosted.lease)
        if request.want == "take":
            hosted.lease.take(client.token)
        elif request.want == "release":
            hosted.lease.release(client.token)
        elif not hosted.lease.grant(client.token):
            raise BridgeError("refused", "nobody asks for the control, or it is not yours to give")
        server.send(client, server.controlled(hosted, client.token, request.id))
        if hosted.lease != before:
            server.tell_control(hosted, before)

    def hand_over(self, hosted: Hosted) -> None:
        """What the person at a window wants: the control back or, if it is there, to give it to who asks."""
        before, lease = replace(hosted.lease), hosted.lease
        if lease.holder != LOCAL:
            lease.take(LOCAL)
        else:
            lease.grant(LOCAL)
        if lease != before:
            self._server.tell_control(hosted, before)

    def _tune(self, client: "Client", request: p.Tune) -> None:
        hosted = self._controlled(client, request.session)
        loop, clock = hosted.loop, request.clock or hosted.clock
        if (request.paused is not None or request.single_step) and clock == "lockstep":
            raise BridgeError("wrong_clock", "a session in lockstep stands still anyhow; use step")
        if request.steps is not None:
            self._check_steps(self._world(hosted), request.steps)
        if request.steps is not None:
            loop.set_steps(request.steps)
        if request.auto_steps is not None:
            loop.set_auto_steps(request.auto_steps)
        if request.hold is not None:
            loop.set_hold(request.hold)
        if request.speed is not None:
            loop.set_speed(request.speed)
        if request.paused is not None:
            loop.set_paused(request.paused)
        hosted.set_clock(clock)  # after all that is to hold from its first tick on
        self._server.show_control(hosted)
        if request.single_step:
            loop.single_step()
        self._server.send(client, p.Done(id=request.id))

    def _find(self, name: str) -> Hosted:
        hosted = self._server.hosted.get(name)
        if hosted is None:
            raise BridgeError("unknown_session", "there is no such session; it was closed, or expired")
        hosted.last_used = time.monotonic()
        return hosted

    def _controlled(self, client: "Client", name: str) -> Hosted:
        hosted = self._find(name)
        if not hosted.lease.holder and client.token == hosted.lease.owner:
            before = replace(hosted.lease)
            hosted.lease.holder = client.token  # its owner came back
            self._server.tell_control(hosted, before)
        if hosted.lease.holder != client.token:
            raise BridgeError("not_in_control", "another one controls this session; ask by control, take")
        return hosted

    def _doubled(self, client: "Client", name: str) -> Hosted:
        hosted = self._controlled(client, name)
        if hosted.public:
            raise BridgeError("refused", "the session of a window cannot be doubled; serve has its own")
        return hosted

    @staticmethod
    def _world(hosted: Hosted) -> "World":
        if hosted.loop.world is None:
            raise BridgeError("busy", "the session is still being opened; try again in a moment")
        return hosted.loop.world

    def _check_steps(self, world: "World", steps: int) -> None:
        try:
            world.schedule(steps)
        except PlayheadError as error:
            raise BridgeError("bad_value", str(error)) from None

    def _host(
        self,
        client: "Client",
        id: int,
        world: "World",
        scene: Scene,
        clock: p.Clock,
        make: Callable[[], Work[Beginning]],
    ) -> None:
        """Opens a session of a client's, and answers with what it is."""

        def opened(future: "Future[Hosted]") -> None:
            error = future.exception()
            if error is not None:
                self._server.send(client, self._server.error(id, error))
            else:
                self._describe(client, id, future.result())

        self._server.opener.open(client.token, world, scene, clock, make, opened)

    def _describe(self, client: "Client", id: int, hosted: Hosted) -> None:
        def reply(found: tuple[int, int, int, np.ndarray, Any]) -> None:
            tick, seed, steps, frames, world = found
            self._server.send(client, p.Opened(
                id=id, session=hosted.id, world=self._server.hall.info(world), scene=scene_info(hosted.scene),
                clock=hosted.clock, tick=tick, seed=seed, steps=steps,
                in_control=hosted.lease.holder == client.token, shape=frames.shape,
            ), frames)  # fmt: skip

        ask = hosted.loop.ask(lambda s: (s.tick, s.seed, s.steps, s.frames, s.world))
        self._then(client, id, ask, reply)

    def _observed(self, client: "Client", id: int, hosted: Hosted) -> None:
        def reply(found: tuple[int, int, np.ndarray]) -> None:
            tick, seed, frames = found
            self._server.send(
                client, p.Observed(id=id, session=hosted.id, tick=tick, seed=seed, shape=frames.shape), frames
            )

        self._then(client, id, hosted.loop.ask(lambda s: (s.tick, s.seed, s.frames)), reply)

    def _then(self, client: "Client", id: int, future: "Future[Any]", reply: Callable[[Any], None]) -> None:
        """Calls `reply` with what a session answers, or answers with its error; on the server's thread."""

        def done(answered: "Future[Any]") -> None:
            try:
                reply(answered.result())
            except Exception as error:
                self._server.send(client, self._server.error(id, error))

        # The future is not in the closure: a circle would keep the session until it is looked for.
        future.add_done_callback(lambda answered: self._server.post(lambda: done(answered)))
