"""Sessions of one world on threads of their own: those that arrive together step in one forward pass."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from playhead.engine.crew import Crew
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


_ANYBODY = SessionTiming()
"""Of all sessions of a wide world, whose coming nobody waits for."""


def _locked() -> threading.Lock:
    made = threading.Lock()
    made.acquire()
    return made


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
    woken: threading.Lock = field(default_factory=_locked)


class Batcher:
    """Steps sessions for the loops of a server: each loop calls `step` and `finish` as those of its session.

    A pass takes all that wait for one. Sessions that step back to back are waited for, because they would
    else just miss each other for ever. What a session dreams does not depend on who shares its pass. One of
    the threads that want a tick sees to the pass of all; the others sleep until theirs is done.
    """

    def __init__(self, wide: bool = False) -> None:
        """`wide`: of a world whose passes all take the same time (`World.wide`).

        Nobody is waited for then: those who come during a pass are in the next one.
        """
        self._members: WeakKeyDictionary[Session, SessionTiming] = WeakKeyDictionary()
        self._waiting: list[PendingTick] = []
        self._changed = threading.Condition()
        self._passing = False  # whether somebody sees to a pass, or is about to
        self._wanted = sys.maxsize  # who have to be here before it is worth a look
        self._wide = wide
        self.crew = Crew(self.step_all) if wide else None

    def step(self, session: Session, action: Action) -> np.ndarray:
        """As `Session.step`."""
        session.finish()
        (found,) = self.step_all([session], [action])
        if isinstance(found, BaseException):
            raise found
        return found

    def step_all(
        self,
        sessions: Sequence[Session],
        actions: Sequence[Action],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[np.ndarray | BaseException]:
        """Steps sessions that are finished. Returns each one's frames, or what kept it from having them.

        `meanwhile` is called while another thread or device is at work, as often as that is so.
        """
        arrivals = [
            PendingTick(session, self._arrive(session), action)
            for session, action in zip(sessions, actions, strict=True)
        ]
        with self._changed:
            self._waiting += arrivals
            leads, self._passing = not self._passing, True
            if len(self._waiting) >= self._wanted:
                self._changed.notify()
        try:
            for arrival in arrivals:
                if not leads:
                    meanwhile()
                    arrival.woken.acquire()
                    leads = not arrival.done
                while not arrival.done:
                    self._pass(arrival, meanwhile)
        finally:
            if leads:
                self._hand_on(arrivals)
        return [_found(arrival) for arrival in arrivals]

    def _arrive(self, session: Session) -> SessionTiming:
        if self._wide:
            return _ANYBODY
        with self._changed:
            member = self._members.setdefault(session, SessionTiming())
            member.busy, member.takes = False, time.perf_counter() - member.free_since
            return member

    def finish(self, session: Session) -> None:
        """As `Session.finish`."""
        session.finish()
        if self._wide:
            return
        with self._changed:
            member = self._members.get(session)
            if member is not None:
                member.busy, member.free_since = False, time.perf_counter()

    def _hand_on(self, own: Sequence[PendingTick]) -> None:
        """Has the next one who waits see to a pass."""
        with self._changed:
            for arrival in own:
                if not arrival.done:  # its pass came to nothing
                    self._waiting.remove(arrival)
            self._passing = bool(self._waiting)
            if self._waiting:
                self._waiting[0].woken.release()

    def _pass(self, own: PendingTick, meanwhile: Callable[[], None]) -> None:
        """A pass of those that wait and go with this one; others have one of their own."""
        self._gather(own)
        with self._changed:
            group = self._alike(own)
            members = set(map(id, group))
            self._waiting = [a for a in self._waiting if id(a) not in members]
        try:
            frames = step_together([a.session for a in group], [a.action for a in group], meanwhile)
            for arrival, found in zip(group, frames, strict=True):
                arrival.frames = found
        except BaseException as error:
            for arrival in group:
                arrival.error = error
        for arrival in group:
            arrival.member.busy = arrival.error is None  # its commit is under way
            arrival.done = True
            if arrival.woken.locked():
                arrival.woken.release()

    def _gather(self, own: PendingTick) -> None:
        """Waits for those who are sure to come in a moment."""
        most, until = largest(own.session.world), time.perf_counter() + LONGEST
        with self._changed:
            while not self._wide and own.session.joins and len(self._waiting) < most:
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
        steps = own.session.steps
        others = [
            a for a in self._waiting if a is not own and a.session.steps == steps and a.session.joins
        ]  # fmt: skip
        return [own, *others][: largest(own.session.world)]


def _found(arrival: PendingTick) -> np.ndarray | BaseException:
    if arrival.error is not None:
        return arrival.error
    assert arrival.frames is not None
    return arrival.frames
