"""Sessions of one world on threads of their own: those that arrive together step in one forward pass."""

import threading
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from playhead.engine.session import Session
from playhead.engine.together import LARGEST, step_together
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
    """A session that wants a tick, until it has it."""

    session: Session
    member: SessionTiming
    action: Action
    frames: np.ndarray | None = None
    error: BaseException | None = None
    done: bool = False


class Batcher:
    """Steps sessions for the loops of a server: each loop calls `step` and `finish` as those of its session.

    A pass takes all that wait for one. Sessions that step back to back are waited for, because they would
    else just miss each other for ever. What a session dreams does not depend on who shares its pass.
    """

    def __init__(self) -> None:
        self._members: WeakKeyDictionary[Session, SessionTiming] = WeakKeyDictionary()
        self._waiting: list[PendingTick] = []
        self._changed = threading.Condition()
        self._passing = threading.Lock()

    def step(self, session: Session, action: Action) -> np.ndarray:
        """As `Session.step`."""
        session.finish()
        with self._changed:
            member = self._members.setdefault(session, SessionTiming())
            member.busy, member.takes = False, time.perf_counter() - member.free_since
            arrival = PendingTick(session, member, action)
            self._waiting.append(arrival)
            self._changed.notify_all()
        while not arrival.done:
            with self._passing:
                if not arrival.done:
                    self._pass(arrival)
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
                self._changed.notify_all()

    def _pass(self, own: PendingTick) -> None:
        """A pass of those that wait and go with this one; others have one of their own."""
        self._gather(own)
        with self._changed:
            group = self._alike(own)
            self._waiting = [a for a in self._waiting if a not in group]
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

    def _gather(self, own: PendingTick) -> None:
        """Waits for those who are sure to come in a moment."""
        until = time.perf_counter() + LONGEST
        with self._changed:
            while own.session.joins and len(self._waiting) < LARGEST:
                now = time.perf_counter()
                here = {id(a.member) for a in self._waiting}
                coming = [m for m in self._members.values() if id(m) not in here and m.expected(now)]
                if not coming or now > until:
                    return
                self._changed.wait(PATIENCE)

    def _alike(self, own: PendingTick) -> list[PendingTick]:
        """Those who may share a pass with one, it first."""
        if not own.session.joins:
            return [own]
        others = [
            a for a in self._waiting
            if a is not own and a.session.steps == own.session.steps and a.session.joins
        ]  # fmt: skip
        return [own, *others][:LARGEST]
