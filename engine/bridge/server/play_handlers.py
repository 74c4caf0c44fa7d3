"""Requests by which a session is played: steps, acts, how it keeps the time, who controls it."""

import time
from concurrent.futures import Future
from dataclasses import replace

import msgspec
import numpy as np

from playhead.engine.bridge.server.connection import KnownClient
from playhead.engine.bridge.server.registry import check_steps
from playhead.engine.bridge.server.replies import Replies
from playhead.engine.bridge.server.sessions import Sessions
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.tick import Tick
from playhead.engine.tuning import Tuning

WAITING_STEPS = 4
"""Requests to step that a session lets wait."""


class PlayHandlers:
    """Their handlers, each by the name of its request. Lives on the server's thread."""

    def __init__(self, sessions: Sessions, replies: Replies) -> None:
        self._sessions, self._replies = sessions, replies

    def step(self, client: KnownClient, request: p.StepRequest) -> None:
        hosted, replies = self._sessions.controlled(client, request.session), self._replies
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
                replies.post(lambda: reply(tick.number, seconds))

        def reply(number: int, seconds: float) -> None:
            hosted.waiting_steps -= 1
            hosted.last_used = time.monotonic()
            frames = (kept[0] if len(kept) == 1 else np.concatenate(kept)) if kept else None
            replies.send(client, p.StepReply(
                id=request.id, session=hosted.id, first=number - len(request.actions) + 1, tick=number,
                tick_seconds=seconds, shape=None if frames is None else frames.shape,
            ), frames)  # fmt: skip

        def failed(error: BaseException) -> None:
            hosted.waiting_steps -= 1
            replies.refuse(client, request.id, error)

        def ended(future: "Future[None]") -> None:
            error = future.exception()
            if error is not None and count < len(request.actions):
                replies.post(lambda: failed(error))

        hosted.loop.step(request.actions, each, "bridge").add_done_callback(ended)

    def act(self, client: KnownClient, request: p.ActRequest) -> None:
        hosted, replies = self._sessions.controlled(client, request.session), self._replies
        if hosted.clock != "live":
            raise BridgeError("wrong_clock", "the session is in lockstep; use step, or tune it to live")
        hosted.world.config.action.check(request.action)
        lost = hosted.acts.act(client.token, request)
        replies.send(client, p.ActReply(id=request.id, session=hosted.id))
        for token, act in lost:
            replies.tell(token, p.SupersededPush(id=act.id, session=hosted.id))

    def observe(self, client: KnownClient, request: p.ObserveRequest) -> None:
        self._replies.observed(client, request.id, self._sessions.find(request.session))

    def stats(self, client: KnownClient, request: p.StatsRequest) -> None:
        hosted = self._sessions.find(request.session)
        stats = msgspec.to_builtins(hosted.loop.stats) if hosted.loop.stats else {}
        if hosted.loop.world is not None:
            stats["device"] = str(hosted.loop.world.device)
        self._replies.send(client, p.StatsReply(id=request.id, session=hosted.id, stats=stats))

    def control(self, client: KnownClient, request: p.ControlRequest) -> None:
        hosted = self._sessions.find(request.session)
        before = replace(hosted.lease)
        if request.want == "take":
            hosted.lease.take(client.token)
        elif request.want == "release":
            hosted.lease.release(client.token)
        elif not hosted.lease.grant(client.token):
            raise BridgeError("refused", "nobody asks for the control, or it is not yours to give")
        self._replies.send(client, self._sessions.control_of(hosted, client.token, request.id))
        if hosted.lease != before:
            self._sessions.tell_control(hosted, before)

    def tune(self, client: KnownClient, request: p.TuneRequest) -> None:
        hosted = self._sessions.controlled(client, request.session)
        loop, clock = hosted.loop, request.clock or hosted.clock
        if (request.paused is not None or request.single_step) and clock == "lockstep":
            raise BridgeError("wrong_clock", "a session in lockstep stands still anyhow; use step")
        if request.steps is not None:
            check_steps(hosted.world, request.steps)
        loop.tune(Tuning(request.steps, request.auto_steps, request.hold, request.speed, request.paused))
        hosted.set_clock(clock)  # after all that is to hold from its first tick on
        self._sessions.show_control(hosted)
        if request.single_step:
            loop.single_step()
        self._replies.send(client, p.DoneReply(id=request.id))
