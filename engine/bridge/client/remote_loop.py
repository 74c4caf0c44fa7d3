"""Playing a session on another machine, with the face of `engine.loop.Loop`.

What is held goes up as soon as it changes; frames come down by a `Watcher`. A connection that is lost is
dialled again until it is back, and the same session goes on.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import zmq

from playhead.engine.bridge.client.held_input import HOLD_SECONDS, HeldInput, RemoteScript
from playhead.engine.bridge.client.host_finding import GONE
from playhead.engine.bridge.client.remote_session import RemoteSession
from playhead.engine.bridge.client.remote_stats import RemoteStats
from playhead.engine.bridge.client.watcher import Watcher
from playhead.engine.bridge.wire import protocol
from playhead.engine.bridge.wire.protocol import FrameHeader, SceneInfo
from playhead.engine.bridge.work_queue import WorkQueue
from playhead.engine.clock import FASTEST, SLOWEST
from playhead.engine.loop import LoopError
from playhead.engine.stats import Stats
from playhead.engine.tick import ActionSource, Tick, Timing
from playhead.world.action import Action
from playhead.world.errors import PlayheadError

ASK_EVERY = 0.25
"""Seconds between two questions how the session does, which also measure the round trip."""
SILENCE = 3.0
"""Seconds without any answer after which the connection counts as lost."""
MOTION_EVERY = 1 / 60
"""Seconds between two looks at how far the axes were moved."""


class _ConnectionLost(Exception):
    """The connection or the session is gone, and why."""


class RemoteLoop:
    """Plays a `remote` session with the actions of `source`, after those of a `script`.

    `poke` has to be called when `source` may have changed. `last` ends the loop after so many ticks.
    `control` says who controls the session.
    `complain` is told, in a sentence, what was refused and what became of the connection.
    """

    def __init__(
        self,
        remote: RemoteSession,
        source: ActionSource,
        *,
        key_time: Callable[[], float | None] = lambda: None,
        script: Sequence[Action] = (),
        last: int | None = None,
        complain: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._remote, self._last, self._complain = remote, last, complain
        self._held, self._script = HeldInput(source, key_time), RemoteScript(script)
        self._receivers: list[Callable[[Tick], None]] = []
        self._commands = WorkQueue()
        self._answers: dict[int, Callable[[Any, np.ndarray | None], None]] = {}
        self._poking = threading.Lock()
        self._stats = RemoteStats(remote.wanted.codec)
        self._tick: int | None = None
        self._played = 0
        self._stopping = False
        self._error: BaseException | None = None
        self.timeline: None = None  # what is lived there is kept there
        self.control = remote.control
        self._thread = threading.Thread(target=self._run, name="remote", daemon=True)

    @property
    def stats(self) -> Stats | None:
        return self._stats.stats

    def subscribe(self, receive: Callable[[Tick], None]) -> None:
        """Has `receive` called with every tick, on a thread of this class; may not block."""
        self._receivers.append(receive)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        """Waits for the end. Raises the error that brought it about, if one did."""
        self._thread.join()
        if isinstance(self._error, PlayheadError):
            raise self._error
        if self._error is not None:
            reason = f"{type(self._error).__name__}: {self._error}"
            raise LoopError(f"the connection to {self._remote.address} broke off: {reason}") from self._error

    def stop(self) -> None:
        """Ends the loop, and the session if it is this player's own."""
        self._stopping = True
        self._commands.wake()

    def poke(self) -> None:
        """Sends to the server what is held, at once, if that has changed; may be called by any thread."""
        with self._poking:  # so that what is held goes up in the order in which it was
            found, client = self._held.look(), self._remote.client
            if found is not None:
                self._commands.post(lambda: self._act(*found) if client is self._remote.client else None)

    def toggle_pause(self) -> None:
        self._tune(lambda s: {"paused": not s.paused})

    def single_step(self) -> None:
        """Plays one tick and then stands still."""
        self._tune(lambda s: {"single_step": True})

    def change_speed(self, factor: float) -> None:
        """Multiplies the speed, within the clock's range."""
        self._tune(lambda s: {"speed": min(max(s.speed * factor, SLOWEST), FASTEST)})

    def change_steps(self, by: int) -> None:
        """Adds to the denoise steps a tick, and leaves them there."""
        self._tune(lambda s: {"steps": s.steps + by})

    def toggle_auto_steps(self) -> None:
        """Lets the server's speed choose the denoise steps; or gives back the world's own."""
        self._tune(lambda s: {"auto_steps": not s.auto})

    def toggle_hold(self) -> None:
        """Stands still while nothing is held, or goes on all the time."""
        self._remote.wanted = replace(self._remote.wanted, hold=not self._remote.wanted.hold)
        self._tune(lambda s: {"hold": self._remote.wanted.hold})

    def restart(self, seed: int | None = None) -> None:
        """Begins the scene again, with the same seed or with another."""
        self._commands.post(lambda: self._reset(self._remote.scene, seed))

    def switch(self, choose: Callable[[], SceneInfo]) -> None:
        """Goes on in another scene; if that cannot be had, in this one, and says so."""

        def go() -> None:
            try:
                scene = choose()
            except PlayheadError as error:
                self._complain(str(error))
            else:
                self._reset(scene, scene.seed)

        self._commands.post(go)

    def hand_over(self) -> None:
        """Gives the control to the one who asks for it, or asks for it."""

        def hand_over() -> None:
            grants = self.control.in_control and self.control.asking
            self._ask(protocol.ControlRequest(session=self._session, want="grant" if grants else "take"))

        self._commands.post(hand_over)

    def _tune(self, change: Callable[[Stats], dict[str, Any]]) -> None:
        """Has the session run otherwise; the figures say so at once, and later what the server made of it."""

        def tune() -> None:
            if self.stats is None:
                return
            changes = change(self.stats)
            self._ask(protocol.TuneRequest(session=self._session, **changes))
            stands = {"paused": True} if "single_step" in changes else {}
            self._stats.expect(**{k: v for k, v in changes.items() if k in ("paused", "speed")}, **stands)

        self._commands.post(tune)

    def _reset(self, scene: SceneInfo, seed: int | None) -> None:
        before, wanted = self._remote.scene, self._remote.wanted
        name = "" if scene.name == before.name else scene.name
        present = self._remote.opened.seed if self.stats is None else self.stats.seed
        self._remote.go_to(scene, present if seed is None else seed)

        def answered(reply: protocol.Message, frames: np.ndarray | None) -> None:
            if isinstance(reply, protocol.ErrorReply):
                self._remote.scene, self._remote.wanted = before, wanted

        self._stats.receipts.forget()
        self._ask(protocol.ResetRequest(session=self._session, scene=name, seed=seed), answered)

    def _run(self) -> None:
        try:
            while not self._finished():
                try:
                    self._play()
                except _ConnectionLost as lost:
                    self._come_back(str(lost))
        except BaseException as error:
            self._error = error
        finally:
            self._remote.close()
            self._commands.close()

    def _finished(self) -> bool:
        return self._stopping or (self._last is not None and self._played >= self._last)

    def _play(self) -> None:
        """Plays until the end. Raises _ConnectionLost where that or the session is lost."""
        remote, opened = self._remote, self._remote.opened
        self._session, self.control = opened.session, remote.control
        self._axes = not opened.world.action_space.binary
        self._stats.state = ""
        self._answers.clear()
        self._stats.receipts.forget()
        self._stats.update(remote.figures)
        self._script.go_on_from(opened.tick)
        now = time.perf_counter()
        timing = Timing(now, now, 0.0, 1 / opened.world.ticks_per_second, None)
        action = Action() if remote.same else None
        self._show(Tick(opened.tick, opened.seed, opened.steps, action, remote.frames, timing))
        client, codec = remote.client, remote.wanted.codec
        self._stats.watcher = Watcher(lambda: client.watch(opened.session, codec), self._see)
        try:
            if self._script.over and opened.clock == "lockstep":
                self._go_live()
            self._talk()
        finally:
            self._stats.watcher.close()

    def _come_back(self, lost: str) -> None:
        """Dials until there is a connection again."""
        self._complain(lost)
        self._stats.state = "no connection: trying again"
        self._stats.update()
        self._remote.come_back(lambda: self._stopping, self._complain)

    def _go_live(self) -> None:
        wanted = self._remote.wanted
        self._script.end()
        self._stats.expect(paused=False)
        self._ask(
            protocol.TuneRequest(
                session=self._session,
                clock="live",
                speed=wanted.speed,
                hold=wanted.hold,
                auto_steps=True if wanted.auto_steps else None,
            )
        )

    def _talk(self) -> None:
        """Sends acts and commands as they come, and hears what the server says."""
        client = self._remote.client
        poller = zmq.Poller()
        poller.register(client.socket, zmq.POLLIN)
        poller.register(self._commands.woken, zmq.POLLIN)
        self._heard = time.perf_counter()
        self._held.tell_anew(self._tell)
        asked = 0.0
        while not self._finished():
            now = time.perf_counter()
            if self._stats.watcher is not None and self._stats.watcher.error is not None:
                raise self._stats.watcher.error
            if client.lost or now - self._heard > SILENCE:
                raise _ConnectionLost("the connection is lost; trying to come back")
            if now >= asked + ASK_EVERY:
                asked = now
                self._ask_how_it_does(now)
            wait = asked + ASK_EVERY - now
            if not self._script.over:
                self._step(self._script.take(now, self._period))
                wait = min(wait, self._script.wait(now))
            if self._axes:
                self.poke()
                wait = min(wait, MOTION_EVERY)
            poller.poll(int(max(0.0, wait) * 1000))
            self._commands.do()
            self._held.renew(self._tell)
            while (found := client.receive(0)) is not None:
                self._hear(*found)

    @property
    def _period(self) -> float:
        return 1 / (self._remote.opened.world.ticks_per_second * self._remote.wanted.speed)

    def _ask(
        self,
        request: protocol.Message,
        answered: Callable[[Any, np.ndarray | None], None] = lambda reply, frames: None,
    ) -> int:
        id = self._remote.client.send(request)
        self._answers[id] = answered
        return id

    def _ask_how_it_does(self, sent: float) -> None:
        def answered(reply: protocol.Message, frames: np.ndarray | None) -> None:
            self._stats.answered(time.perf_counter() - sent)
            if not isinstance(reply, protocol.StatsReply):
                return
            self._stats.update(reply.stats)
            if self.stats is not None and self.stats.paused and self.stats.tick != self._tick:
                self._ask(protocol.ObserveRequest(session=self._session), self._observed)

        self._ask(protocol.StatsRequest(session=self._session), answered)

    def _observed(self, reply: protocol.Message, frames: np.ndarray | None) -> None:
        """A tick that the stream did not bring: in a pause no other would follow it."""
        if isinstance(reply, protocol.ObserveReply) and frames is not None:
            now = time.perf_counter()
            steps = self.stats.steps if self.stats else 0
            timing = Timing(now, now, 0.0, self._period, None)
            self._show(Tick(reply.tick, reply.seed, steps, Action(), frames, timing))

    def _step(self, action: Action | None) -> None:
        """Plays a tick of the script; after the last one the session goes on by the clock."""
        if action is None:
            return

        def answered(reply: protocol.Message, frames: np.ndarray | None) -> None:
            self._script.answered()
            if self._script.over:
                self._go_live()
                self._held.tell_anew(self._tell)

        self._ask(protocol.StepRequest(session=self._session, actions=[action], frames="none"), answered)

    def _act(self, action: Action, key: float | None) -> None:
        """Has the server hold an action; `key` is when a key was pressed for it."""
        id = self._held.tell(action, self._tell)
        if id is not None and key is not None:
            self._stats.receipts.sent(id, key)

    def _tell(self, action: Action, tap: bool) -> int | None:
        if not self.control.in_control or not self._script.over:
            return None
        return self._ask(
            protocol.ActRequest(session=self._session, action=action, hold=HOLD_SECONDS, tap=tap)
        )

    def _hear(self, message: protocol.Message, frames: np.ndarray | None) -> None:
        self._heard = time.perf_counter()
        if isinstance(message, protocol.AppliedPush):
            self._stats.receipts.applied(message.id, message.tick)
            return
        if isinstance(message, protocol.EndedPush):
            raise _ConnectionLost(f"the session has ended: {message.reason}")
        if isinstance(message, protocol.ControlReply):
            self._note_control(message)
        answered = self._answers.pop(message.id, None)
        if isinstance(message, protocol.ErrorReply):
            if message.code == "hello_first" or message.code in GONE:
                raise _ConnectionLost(message.message)
            self._complain(message.message)
        if answered is not None:
            answered(message, frames)

    def _note_control(self, control: protocol.ControlReply) -> None:
        before, self.control = self.control, control
        if control.in_control and not before.in_control:
            self._held.tell_anew(self._tell)
        self._stats.update()

    def _see(self, header: FrameHeader, frames: np.ndarray) -> None:
        """On the watcher's thread: a tick is due to be shown."""
        now = time.perf_counter()
        self._stats.receipts.shown(header.tick, now)
        self._stats.update(header.stats)
        steps = self.stats.steps if self.stats else 0
        timing = Timing(now, now, 0.0, header.period, None)
        action = None if header.begins else header.action or Action()
        if header.begins and self._remote.public:
            self._commands.post(self._ask_for_the_scene)
        self._show(Tick(header.tick, header.seed, steps, action, frames, timing))

    def _ask_for_the_scene(self) -> None:
        """Which is chosen by somebody else, where the session is not this player's own."""

        def answered(reply: protocol.Message, frames: np.ndarray | None) -> None:
            if isinstance(reply, protocol.OpenReply):
                self._remote.scene = reply.scene

        self._ask(protocol.AttachRequest(session=self._session), answered)

    def _show(self, tick: Tick) -> None:
        if tick.action is not None and self._tick is not None:
            self._played += max(0, tick.number - self._tick)
        self._tick = tick.number
        for receive in self._receivers:
            receive(tick)
