"""Sessions of one world on threads of their own: those that arrive together step in one forward pass."""

import sys
import threading
import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from playhead.engine.session import Session
from playhead.engine.together import largest, step_together
from playhead.world.action import Action

PATIENCE = 0.002
"""Seconds that a pass waits for a session which came so soon after its last tick before."""
LONGEST = 0.02
"""Seconds that a pass waits at the most for sessions whose last tick is still being committed."""


@dataclass(eq=False)
class SessionTiming:
    """What is known of a session: when it was last free to go on, how long it then took to come again."""

    busy: bool = False
    free_since: float = 0.0
    takes: float = float("inf")

    def expected(self, now: float) -> bool:
        """Whether it will come in a moment, so that a pass had better wait for it."""
        return self.takes < PATIENCE and (self.busy or now - self.free_since < PATIENCE)


@dataclass(eq=False)
class PendingTick:
    """A session that wants a tick, until it has it.

    `woken` is locked until it is done, or has to see to a pass itself.
    """

    session: Session
    member: SessionTiming
    action: Action
    frames: np.ndarray | None = None
    error: BaseException | None = None
    done: bool = False
    woken: threading.Lock = field(default_factory=threading.Lock)


class Batcher:
    """Steps sessions for the loops of a server: each loop calls `step` and `finish` as those of its session.

    A pass takes all that wait for one. Sessions that step back to back are waited for, because they would
    else just miss each other for ever. What a session dreams does not depend on who shares its pass. One of
    the threads that want a tick sees to the pass of all; the others sleep until theirs is done.
    """

    def __init__(self) -> None:
        self._members: WeakKeyDictionary[Session, SessionTiming] = WeakKeyDictionary()
        self._waiting: list[PendingTick] = []
        self._changed = threading.Condition()
        self._passing = False  # whether somebody sees to a pass, or is about to
        self._wanted = sys.maxsize  # who have to be here before it is worth a look

    def step(self, session: Session, action: Action) -> np.ndarray:
        """As `Session.step`."""
        session.finish()
        with self._changed:
            member = self._members.setdefault(session, SessionTiming())
            member.busy, member.takes = False, time.perf_counter() - member.free_since
            arrival = PendingTick(session, member, action)
            self._waiting.append(arrival)
            leads, self._passing = not self._passing, True
            if not leads:
                arrival.woken.acquire()
                if len(self._waiting) >= self._wanted:
                    self._changed.notify()
        if not leads:
            arrival.woken.acquire()
        if not arrival.done:
            try:
                self._pass(arrival)
            finally:
                self._hand_on(arrival)
        if arrival.error is not None:
            raise arrival.error
        assert arrival.frames is not None
        return arrival.frames

    def finish(self, session: Session) -> None:
        """As `Session.finish`."""
        session.finish()
        with self._changed:
            member = self._members.get(session)
            if member is not None:
                member.busy, member.free_since = False, time.perf_counter()

    def _hand_on(self, own: PendingTick) -> None:
        """Has the next one who waits see to a pass."""
        with self._changed:
            if own in self._waiting:  # its pass came to nothing
                self._waiting.remove(own)
            self._passing = bool(self._waiting)
            if self._waiting:
                self._waiting[0].woken.release()

    def _pass(self, own: PendingTick) -> None:
        """A pass of those that wait and go with this one; others have one of their own."""
        self._gather(own)
        with self._changed:
            group = self._alike(own)
            members = set(map(id, group))
            self._waiting = [a for a in self._waiting if id(a) not in members]
        try:
            frames = step_together([a.session for a in group], [a.action for a in group])
            for arrival, found in zip(group, frames, strict=True):
                arrival.frames = found
        except BaseException as error:
            for arrival in group:
                arrival.error = error
        for arrival in group:
            arrival.member.busy = arrival.error is None  # its commit is under way
            arrival.done = True
            if arrival is not own:
                arrival.woken.release()

    def _gather(self, own: PendingTick) -> None:
        """Waits for those who are sure to come in a moment."""
        most, until = largest(own.session.world), time.perf_counter() + LONGEST
        with self._changed:
            while own.session.joins and len(self._waiting) < most:
                now = time.perf_counter()
                here = {id(a.member) for a in self._waiting}
                coming = sum(id(m) not in here and m.expected(now) for m in self._members.values())
                if not coming or now > until:
                    break
                self._wanted = min(most, len(self._waiting) + coming)
                self._changed.wait(PATIENCE)
            self._wanted = sys.maxsize

    def _alike(self, own: PendingTick) -> list[PendingTick]:
        """Those who may share a pass with one, it first."""
        if not own.session.joins:
            return [own]
        others = [
            a for a in self._waiting
            if a is not own and a.session.steps == own.session.steps and a.session.joins
        ]  # fmt: skip
        return [own, *others][: largest(own.session.world)]
