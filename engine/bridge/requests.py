"""What the server does for each request."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from engine.bridge import protocol as p
from engine.bridge.hall import check_seed, scene_info, session_bytes
from engine.bridge.hosted import ActSource, History, Hosted, Kept, Lease
from engine.bridge.protocol import BridgeError
from engine.loop import Loop, Tick
from engine.session import Session
from scenes.scene import Scene
from world.errors import ActionError, PlayheadError

if TYPE_CHECKING:
    from engine.bridge.server import Client, Server
    from world.world import World

WAITING_STEPS = 4
"""Requests to step that a session lets wait."""


class Requests:
    """Carries requests out, each by the method of its name. Lives on the server's thread."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    def hello(self, request: p.Hello, route: bytes, fd: int) -> None:
        if p.VERSION not in request.protocol:
            raise BridgeError("protocol", f"this server speaks version {p.VERSION} of the protocol")
        server = self._server
        client = server.welcome(request, route, fd)
        public = [h.id for h in server.hosted.values() if h.public]
        server.send(client, p.Welcome(
            id=request.id, protocol=p.VERSION, server="Playhead", token=client.token,
            frames_port=server.frames_port, sessions=public,
        ))  # fmt: skip

    def handle(self, client: "Client", request: p.Message) -> None:
        getattr(self, f"_{type(request).__name__.lower()}")(client, request)

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

        def make() -> Session:
            session = hall.open(world, scene, seed)
            session.steps = steps
            return session

        self._host(client, request.id, world, scene, request.clock, make)

    def _attach(self, client: "Client", request: p.Attach) -> None:
        self._describe(client, request.id, self._find(request.session))

    def _close(self, client: "Client", request: p.Close) -> None:
        hosted = self._controlled(client, request.session)
        if hosted.public:
            raise BridgeError("refused", "this session is ended by closing its window")
        self._server.end(hosted)
        self._server.send(client, p.Done(id=request.id))

    def _reset(self, client: "Client", request: p.Reset) -> None:
        hosted, hall = self._controlled(client, request.session), self._server.hall
        if hosted.public:
            if request.scene:
                raise BridgeError("refused", "the scene of this session is chosen in its window")
            seed = None if request.seed is None else check_seed(request.seed)
            reply = hosted.loop.ask(lambda s: s.reset(s.seed if seed is None else seed), begins=True)
        else:
            world = hall.world(self._world_of(hosted))
            scene = hall.scene(world, request.scene) if request.scene else hosted.scene
            wanted = None if request.seed is None else check_seed(request.seed)
            hosted.scene = scene
            reply = hosted.loop.ask(
                lambda s: hall.start(s, scene, s.seed if wanted is None else wanted), begins=True
            )
        self._then(client, request.id, reply, lambda _: self._observed(client, request.id, hosted))

    def _step(self, client: "Client", request: p.Step) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        if hosted.clock != "lockstep":
            raise BridgeError("wrong_clock", "the session is live; use act, or tune its clock to lockstep")
        if hosted.waiting_steps >= WAITING_STEPS:
            raise BridgeError("busy", f"{WAITING_STEPS} steps wait already; wait for their replies")
        hosted.waiting_steps += 1
        kept: list[np.ndarray] = []
        began = time.perf_counter()
        count = 0

        def each(tick: Tick) -> None:
            nonlocal count
            count += 1
            if request.frames == "all" or (request.frames == "last" and count == len(request.actions)):
                kept.append(tick.frames)
            if count == len(request.actions):
                seconds = time.perf_counter() - began
                server.post(lambda: reply(tick.number, seconds))

        def reply(number: int, seconds: float) -> None:
            frames = (kept[0] if len(kept) == 1 else np.concatenate(kept)) if kept else None
            shape = None if frames is None else frames.shape
            first = number - len(request.actions) + 1
            server.send(client, p.Stepped(
                id=request.id, session=hosted.id, first=first, tick=number, tick_seconds=seconds, shape=shape,
            ), frames)  # fmt: skip

        def ended(future: "Future[None]") -> None:
            hosted.waiting_steps -= 1
            error = future.exception()
            if error is not None and count < len(request.actions):
                self._fail(client, request.id, error)

        hosted.loop.step(request.actions, each).add_done_callback(
            lambda future: server.post(lambda: ended(future))
        )

    def _act(self, client: "Client", request: p.Act) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        if hosted.clock != "live":
            raise BridgeError("wrong_clock", "the session is in lockstep; use step, or tune it to live")
        world = hosted.loop.world
        if world is not None:
            try:
                world.config.action.check(request.action)
            except ActionError as error:
                raise BridgeError("bad_action", str(error)) from None
        lost = hosted.acts.act(client.token, request)
        server.send(client, p.Received(id=request.id, session=hosted.id))
        for token, act in lost:
            server.tell(token, p.Superseded(id=act.id, session=hosted.id))

    def _observe(self, client: "Client", request: p.Observe) -> None:
        self._observed(client, request.id, self._find(request.session))

    def _snapshot(self, client: "Client", request: p.Snapshot) -> None:
        hosted, server = self._controlled(client, request.session), self._server
        if len(hosted.snapshots) >= server.limits.snapshots:
            oldest = next(iter(hosted.snapshots))
            del hosted.snapshots[oldest]
        self._check_memory(hosted)
        name = secrets.token_urlsafe(8)

        def keep(kept: Kept) -> None:
            hosted.snapshots[name] = kept
            server.send(client, p.Snapshotted(
                id=request.id, session=hosted.id, snapshot=name, tick=kept.snapshot.tick
            ))  # fmt: skip

        self._then(client, request.id, hosted.loop.ask(hosted.keep), keep)

    def _restore(self, client: "Client", request: p.Restore) -> None:
        hosted = self._controlled(client, request.session)
        kept = hosted.snapshots.get(request.snapshot)
        if kept is None:
            raise BridgeError("unknown_snapshot", f"no snapshot `{request.snapshot}` is kept; take one first")
        reply = hosted.loop.ask(lambda session: hosted.restore(session, kept), begins=True)
        self._then(client, request.id, reply, lambda _: self._observed(client, request.id, hosted))

    def _fork(self, client: "Client", request: p.Fork) -> None:
        hosted = self._controlled(client, request.session)
        self._twin(client, request.id, hosted, lambda: hosted.loop.ask(
            lambda session: (session.fork(), hosted.past())
        ).result())  # fmt: skip

    def _branch(self, client: "Client", request: p.Branch) -> None:
        hosted, hall = self._controlled(client, request.session), self._server.hall

        def replay() -> tuple[Session, History | None]:
            scene = hosted.scene
            seed, history = hosted.loop.ask(lambda s: (s.seed, hosted.past())).result()
            if request.tick and (history is None or request.tick > len(history)):
                raise BridgeError("bad_value", f"tick {request.tick} is not in this session's past")
            session = hall.open(hall.world(self._world_of(hosted)), scene, seed)
            past = (history or [])[: request.tick]
            for action, steps in past:
                session.steps = steps
                session.step(action)
            return session, past

        self._twin(client, request.id, hosted, replay)

    def _stats(self, client: "Client", request: p.Stats) -> None:
        hosted = self._find(request.session)
        stats = msgspec.to_builtins(hosted.loop.stats) if hosted.loop.stats else {}
        self._server.send(client, p.Figures(id=request.id, session=hosted.id, stats=stats))

    def _control(self, client: "Client", request: p.Control) -> None:
        hosted, server = self._find(request.session), self._server
        before = hosted.lease.holder
        if request.want == "take":
            hosted.lease.take(client.token)
        elif request.want == "release":
            hosted.lease.release(client.token)
        elif not hosted.lease.grant(client.token):
            raise BridgeError("refused", "nobody asks for the control, or it is not yours to give")
        server.send(client, server.controlled(hosted, client.token, request.id))
        if hosted.lease.holder != before or hosted.lease.asking:
            server.tell_control(hosted)

    def _tune(self, client: "Client", request: p.Tune) -> None:
        hosted = self._controlled(client, request.session)
        loop = hosted.loop
        if request.clock is not None and request.clock != hosted.clock:
            hosted.clock = request.clock
            loop.set_paused(request.clock == "lockstep")
        if (request.paused is not None or request.single_step) and hosted.clock == "lockstep":
            raise BridgeError("wrong_clock", "a session in lockstep stands still anyhow; use step")
        if request.steps is not None:
            self._check_steps(loop.world, request.steps)
            loop.set_steps(request.steps)
        if request.auto_steps is not None:
            loop.set_auto_steps(request.auto_steps)
        if request.hold is not None:
            loop.set_hold(request.hold)
        if request.speed is not None:
            loop.set_speed(request.speed)
        if request.paused is not None:
            loop.set_paused(request.paused)
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
            hosted.lease.holder = client.token  # its owner came back
        if hosted.lease.holder != client.token:
            raise BridgeError("not_in_control", "another one controls this session; ask by control, take")
        return hosted

    def _world_of(self, hosted: Hosted) -> str:
        return hosted.scene.world

    def _check_steps(self, world: "World", steps: int) -> None:
        try:
            world.schedule(steps)
        except PlayheadError as error:
            raise BridgeError("bad_value", str(error)) from None

    def _check_memory(self, *more: Hosted, world: "World | None" = None) -> None:
        """Raises BridgeError where one more cache would be more than the server lends out."""
        held = sum(session_bytes(h.loop.world) * (1 + len(h.snapshots))
                   for h in self._server.hosted.values() if h.loop.world is not None)  # fmt: skip
        world = world or more[0].loop.world
        limit = self._server.limits.memory
        if held + session_bytes(world) > limit * 2**20:
            raise BridgeError("limit", f"the {limit} MB for sessions and snapshots are used up; close some")

    def _host(
        self, client: "Client", id: int, world: "World", scene: Scene, clock: p.Clock,
        make: Callable[[], Session], history: Callable[[], History | None] = lambda: None,
    ) -> None:  # fmt: skip
        server = self._server
        server.make_room()
        self._check_memory(world=world)

        def open_hosted() -> Hosted:
            session = make()
            acts = ActSource()
            loop = Loop(lambda: session, acts, lockstep=clock == "lockstep")
            loop.world = world
            lease = Lease(client.token, client.token)
            hosted = Hosted(secrets.token_urlsafe(12), scene, loop, acts, lease, clock)
            hosted._restored = history()
            return hosted

        def opened(future: "Future[Hosted]") -> None:
            error = future.exception()
            if error is not None:
                self._fail(client, id, error)
                return
            hosted = future.result()
            server.add(hosted)
            hosted.loop.start()
            self._describe(client, id, hosted)

        server.open_later(open_hosted, opened)

    def _twin(
        self,
        client: "Client",
        id: int,
        hosted: Hosted,
        make: Callable[[], tuple[Session, History | None]],
    ) -> None:
        """Hosts a second session that is made of an existing one."""
        if hosted.public:
            raise BridgeError("refused", "the session of a window cannot be doubled; serve has its own")
        found: list[History | None] = []

        def session() -> Session:
            made, past = make()
            found.append(past)
            return made

        self._host(client, id, hosted.loop.world, hosted.scene, hosted.clock, session, lambda: found[0])

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

        def done() -> None:
            error = future.exception()
            if error is not None:
                self._fail(client, id, error)
            else:
                reply(future.result())

        future.add_done_callback(lambda _: self._server.post(done))

    def _fail(self, client: "Client", id: int, error: BaseException) -> None:
        if isinstance(error, BridgeError):
            code, message = error.code, error.message
        elif isinstance(error, ActionError):
            code, message = "bad_action", str(error)
        else:
            code, message = "ended", f"the session could not go on: {error}"
        self._server.send(client, p.Error(id=id, code=code, message=message))
