"""The loop: plays a session in real time, on a thread of its own.

Each tick waits for its deadline, samples the input as late as possible, steps the session, hands the frames
over and only then commits. The thread owns the session; others see `Tick`s, `Stats` and the end.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from playhead.engine.clock import Clock
from playhead.engine.inbox import Answer, Inbox, fulfil
from playhead.engine.lent_session import LentSession
from playhead.engine.pace import Pace
from playhead.engine.stats import Stats
from playhead.engine.tick import ActionSource, SingleStepper, Stepper, Tick, Timing
from playhead.engine.tuning import Tuning
from playhead.world.errors import PlayheadError

if TYPE_CHECKING:  # both import torch, and a window opens before that
    from playhead.engine.recording.tree import Point
    from playhead.engine.session import Session
    from playhead.engine.timeline.timeline import Timeline
    from playhead.world.action import Action
    from playhead.world.world import World


class LoopError(PlayheadError):
    """A session could not go on, through no fault of its user."""


class Loop:
    """Plays the session that `open_session` returns, with the actions of `source`.

    `key_time` tells when the newest key event of the last sample happened. `last` ends the loop after so
    many ticks. `hold`: nothing is dreamed while nothing is held, save single steps. With `lockstep` the
    world stands still but for `step`. `complain` is told the sentence of a command that could not be carried
    out; the session goes on as it was. Any other error ends the loop and is raised by `join`. `timeline`
    takes in everything that is played, before anybody sees it, and is the way to `seek`. `stepper` has the
    ticks played, together with those of other sessions perhaps.
    """

    def __init__(
        self,
        open_session: "Callable[[], Session]",
        source: ActionSource,
        *,
        key_time: Callable[[], float | None] = lambda: None,
        speed: float = 1.0,
        auto_steps: bool = False,
        hold: bool = False,
        last: int | None = None,
        lockstep: bool = False,
        complain: Callable[[str], None] = lambda sentence: None,
        make_clock: Callable[[float, float], Clock] = Clock,
        timeline: "Timeline | None" = None,
        stepper: "Stepper | None" = None,
    ) -> None:
        self.timeline = timeline
        self._stepper = stepper or SingleStepper()
        self._open, self._source, self._key_time = open_session, source, key_time
        self._pace = Pace(speed, hold, lockstep, auto_steps, make_clock)
        self._last, self._complain = last, complain
        self._receivers: list[Callable[[Tick], None]] = []
        self._inbox = Inbox(lambda: LoopError("the session ended"))
        self._inbox.turn.acquire()  # until there is a session
        self._stopping = False
        self._played = 0
        self._finished_at = 0.0
        self._held: Action | None = None
        self._error: BaseException | None = None
        self.stats: Stats | None = None
        self.world: World | None = None
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def subscribe(self, receive: Callable[[Tick], None]) -> None:
        """Has `receive` called with every tick, on the loop's thread, before the commit; may not block."""
        self._receivers.append(receive)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Waits for the end, at most so long. Returns whether it has come."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self.alive

    def join(self) -> None:
        """Waits for the end. Raises the error that brought it about, if one did, as a PlayheadError."""
        self._thread.join()
        if isinstance(self._error, PlayheadError):
            raise self._error
        if self._error is not None:
            number = self.stats.tick if self.stats else 0
            reason = next(iter(str(self._error).splitlines()), "")
            sentence = f"the session broke off after tick {number}: {type(self._error).__name__}: {reason}"
            raise LoopError(sentence) from self._error

    def stop(self) -> None:
        """Ends the loop after the tick under way."""
        self._stopping = True
        self._inbox.wake()

    def fail(self, error: PlayheadError) -> None:
        """Ends the loop after the tick under way, with an error of what it cannot do without."""
        self._error = error
        self.stop()

    def tune(self, to: Tuning) -> None:
        """Has the session run otherwise; steps that its world has not are complained about."""
        self._change(lambda: to)

    def toggle_pause(self) -> None:
        self._change(lambda: Tuning(paused=not self._pace.paused))

    def single_step(self) -> None:
        """Plays one tick and then stands still."""
        self._inbox.put(self._pace.single_step)

    def change_speed(self, factor: float) -> None:
        """Multiplies the speed, within the clock's range."""
        self._change(lambda: Tuning(speed=self._pace.speed * factor))

    def change_steps(self, by: int) -> None:
        """Adds to the denoise steps a tick, and leaves them there."""
        self._change(lambda: Tuning(steps=self._session.steps + by))

    def toggle_hold(self) -> None:
        """Stands still while nothing is held, or goes on all the time."""
        self._change(lambda: Tuning(hold=not self._pace.hold))

    def toggle_auto_steps(self) -> None:
        """Lets the machine's speed choose the denoise steps, at most the world's own; or gives those back."""
        self._change(lambda: Tuning(auto_steps=not self._pace.auto))

    def _change(self, change: Callable[[], Tuning]) -> None:
        self._inbox.put(lambda: self._pace.tune(change()))

    def restart(self, seed: int | None = None) -> None:
        """Begins the scene again, with the same seed or with another."""
        self._inbox.put(lambda: self._restart(seed))

    def switch(self, open_session: "Callable[[], Session]") -> None:
        """Goes on with another session; if that cannot be opened, with this one."""
        self._inbox.put(lambda: self._switch(open_session))

    def ask(self, work: "Callable[[Session], Answer]", begins: bool = False) -> "Future[Answer]":
        """Has `work` called with the session between two ticks. Its answer or error comes in the future.

        With `begins` the session goes on from elsewhere: the frames that it then shows are handed over.
        """
        return self._inbox.ask(lambda: self._do(work, begins))

    def _do(self, work: "Callable[[Session], Answer]", begins: bool = False) -> Answer:
        try:
            found = work(self._session)
            if begins:
                self._begin()
        except Exception:
            self._pace.resync()
            raise
        return found

    def seek(self, point: "Point") -> "Future[np.ndarray]":
        """Goes on from a moment of the timeline, whose frames are handed over. LoopError without one."""
        timeline = self._need_timeline()
        return self.ask(lambda session: timeline.seek(session, point), begins=True)

    def rewind(self, ticks: int) -> "Future[np.ndarray]":
        """Goes back by so many ticks, at most to the start."""
        timeline = self._need_timeline()
        return self.ask(lambda session: timeline.rewind(session, ticks), begins=True)

    def _need_timeline(self) -> "Timeline":
        if self.timeline is None:
            raise LoopError("this session keeps no timeline, so there is no way back")
        return self.timeline

    def step(
        self, actions: "Sequence[Action]", each: Callable[[Tick, float], None], source: str
    ) -> "Future[None]":
        """Plays these actions at once, a tick each, and calls `each` with every tick before its commit.

        It is also told the seconds that the world has taken so far, what was left of a tick before included.
        `source`: whose actions they are, for the timeline.
        """
        asked = time.perf_counter()

        def play(session: "Session") -> None:
            began = time.perf_counter() - max(0.0, self._finished_at - asked)
            for action in actions:
                session.check(action)
            for action in actions:
                self._play(
                    action,
                    source,
                    self._sample(),
                    receive=lambda tick: each(tick, time.perf_counter() - began),
                )

        crew = self._stepper.crew
        if crew is None or not self._pace.lockstep:
            return self.ask(play)
        if self._inbox.lend():
            try:
                return crew.submit(self._lent(actions, each, source))
            except BaseException:
                self._inbox.turn.release()
                raise
        answer: Future[None] = Future()

        def take() -> bool:
            if self._pace.lockstep:
                crew.submit(self._lent(actions, each, source, answer))
                return True
            fulfil(answer, lambda: self._do(play))  # what was asked before has it go on by itself
            return False

        return self._inbox.lend_later(take, answer)

    def _lent(
        self,
        actions: "Sequence[Action]",
        each: Callable[[Tick, float], None],
        source: str,
        answer: "Future[None] | None" = None,
    ) -> LentSession:
        """The session for some steps, for who has its turn."""
        session, take = self._session, self._take
        return LentSession(
            *(session, actions, each),
            sample=self._sample,
            now=self._pace.clock.now,
            played=lambda number, action, frames, sampled, ready, receive: take(
                number, action, source, session.steps, frames, sampled, ready, receive=receive, publish=False
            ),
            back=self._go_on,
            at_once=self.timeline is not None or self._last is not None,
            answer=answer,
        )

    def _sample(self) -> float:
        """When the next of some steps is begun. LoopError where none may be."""
        if self._finished():
            raise LoopError("the session ended")
        return self._pace.clock.now()

    def _go_on(self, broke_off: bool) -> None:
        """After the session was lent."""
        try:
            if broke_off:
                self._pace.resync()
            self._publish()
        finally:
            self._inbox.turn.release()

    def _run(self) -> None:
        try:
            try:
                self._enter(self._open())
            finally:
                self._inbox.turn.release()
            while not self._finished():
                late = self._pace.wait()
                self._obey()
                if not self._stopping and self._pace.take_turn():
                    self._tick(late)
        except BaseException as error:
            self._error = error
        finally:
            self._inbox.close()
            self._receivers.clear()  # they know this loop: what a session holds shall go with it, at once

    def _finished(self) -> bool:
        return self._stopping or (self._last is not None and self._played >= self._last)

    def _obey(self) -> None:
        """Carries out the commands that have come in; while the world stands still, waits for one."""
        waiting = self._pace.halted and not self._stopping
        count = max(len(self._inbox), waiting)  # what comes meanwhile may not delay a tick
        while count and not self._pace.single_steps:
            count -= 1
            try:
                self._inbox.obey()
            except PlayheadError as error:
                self._complain(str(error))
            self._publish()

    def _tick(self, late: float) -> None:
        """Plays a tick with the source's action, unless the world waits for something to be held."""
        pace, sampled = self._pace, self._pace.clock.now()
        action, waited = self._source.sample(), pace.waiting
        if pace.idles(action):
            self._held = None
            if not waited:
                self._publish()
            return
        key = pace.key_event(self._key_time())
        self._play(action, getattr(self._source, "source", "script"), sampled, late, key)

    def _play(
        self,
        action: "Action",
        source: str,
        sampled: float,
        late: float = 0.0,
        key: float | None = None,
        receive: Callable[[Tick], None] | None = None,
    ) -> None:
        """Plays a tick with an action; `receive` gets it before others do."""
        session, steps = self._session, self._session.steps
        frames = self._stepper.step(session, action)
        ready = self._pace.clock.now()
        self._take(session.tick, action, source, steps, frames, sampled, ready, late, key, receive)

    def _take(
        self,
        number: int,
        action: "Action",
        source: str,
        steps: int,
        frames: np.ndarray,
        sampled: float,
        ready: float,
        late: float = 0.0,
        key: float | None = None,
        receive: Callable[[Tick], None] | None = None,
        publish: bool = True,
    ) -> None:
        """Takes in a tick that was `ready` then: for the timeline, for those who look, for the pace.

        Of several in a row the last one is to `publish`.
        """
        session, pace, action = self._session, self._pace, action.shared()
        pace.waiting = False
        timing = Timing(sampled, ready, late, pace.expected, key)
        tick = Tick(number, session.seed, steps, action, frames, timing, source)
        if self.timeline is not None:
            tick = self.timeline.receive(tick)
        if receive is not None:
            receive(tick)
        self._hand_over(tick)
        self._stepper.finish(session)
        if self.timeline is not None:
            self.timeline.settle(session)
        self._finished_at = time.perf_counter()
        self._played += 1
        self._held = action
        # Of what was lent, which says so by `publish`, nothing was left to be committed.
        pace.add(sampled, ready, pace.clock.now() if publish else ready, key)
        if publish:
            self._publish()

    def _enter(self, session: "Session") -> None:
        self._session, self.world = session, session.world
        self._pace.enter(session, session.world.config.ticks_per_second, session.world.steps)
        self._begin()

    def _begin(self) -> None:
        """Hands over the last frames of the past from which the session goes on."""
        session, now = self._session, self._pace.clock.now()
        timing = Timing(now, now, 0.0, self._pace.clock.period, None)
        tick = Tick(session.tick, session.seed, session.steps, None, session.frames, timing)
        if self.timeline is not None:
            self.timeline.begin(session)
            tick = self.timeline.receive(tick)
        self._hand_over(tick)
        self._held = None
        self._pace.resync()
        self._publish()

    def _hand_over(self, tick: Tick) -> None:
        for receive in self._receivers:
            receive(tick)

    def _restart(self, seed: int | None) -> None:
        self._session.reset(self._session.seed if seed is None else seed)
        self._begin()

    def _switch(self, open_session: "Callable[[], Session]") -> None:
        try:
            session = open_session()
        except PlayheadError:
            self._pace.resync()
            raise
        if session.world is self._session.world and not self._pace.auto:
            session.steps = self._session.steps
        self._enter(session)

    def _publish(self) -> None:
        session = self._session
        held = () if self._held is None else self._held.in_words()
        self.stats = self._pace.stats(session.tick, session.seed, held, session.offloaded)
