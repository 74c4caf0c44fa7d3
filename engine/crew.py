"""Sessions in lockstep whose steps one thread plays: a pass for all that are asked for one.

A loop of its own for every session costs a tick several changes of threads, which is more than its share of a
wide pass on a GPU. While a session stands still its loop lends it here, after what was asked of it before.
What a pass played is taken in while the next one is under way, which takes another device's time.
"""

import contextlib
import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # it imports torch, and a window opens before that
    from playhead.engine.session import Session
    from playhead.world.action import Action


class LentSteps(Protocol):
    """A session that is lent for some steps: each is begun, arrives and is taken in, on the crew's thread.

    A step may be begun, and its pass be under way, before the one before is taken in; with `at_once` none is.
    After `give_back` the session belongs to its loop again.
    """

    session: "Session"
    answer: "Future[None]"
    at_once: bool

    def begin(self) -> "Action | None":
        """The next step's action, None where no step is left. Raises what keeps it from being played."""
        ...

    def arrive(self, frames: np.ndarray) -> None:
        """The step that was begun last has its frames."""
        ...

    def take_in(self) -> None:
        """Takes in the step that arrived last. Raises what keeps it from that."""
        ...

    def give_back(self, error: BaseException | None) -> None:
        """Lets the loop go on, and answers."""
        ...


StepAll = Callable[
    [Sequence["Session"], Sequence["Action"], Callable[[], None]], Sequence[np.ndarray | BaseException]
]


@dataclass(eq=False)
class _Member:
    """Lent steps, and how far they are: whether one is still to be taken in, and none else is under way."""

    steps: LentSteps
    untaken: bool = False
    over: bool = False
    error: BaseException | None = None

    def take_in(self) -> None:
        """Takes in what has arrived, if anything has."""
        if self.untaken:
            self.untaken = False
            try:
                self.steps.take_in()
            except BaseException as error:
                self.error = self.error or error

    def end(self) -> None:
        """Gives the session back, with all taken in that was played."""
        self.take_in()
        try:
            self.steps.give_back(self.error)
        except Exception:  # of one session, and no reason to keep others from theirs
            logging.getLogger("playhead").exception("a session could not be given back")


class Crew:
    """Plays the steps of lent sessions by `step_all`, which gives each one's frames or its error.

    That may call what it is given with them while the pass is under way. The crew's thread begins with the
    first of them, and ends once nobody has the crew any more.
    """

    def __init__(self, step_all: StepAll) -> None:
        self._step_all = step_all
        self._untaken: list[_Member] = []
        self._asked: queue.SimpleQueue[LentSteps | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # Not when the interpreter ends: a thread that wakes up then takes the process down with it.
        weakref.finalize(self, self._asked.put, None).atexit = False

    def submit(self, steps: LentSteps) -> "Future[None]":
        """Has the steps played, together with others'. For any thread.

        Raises RuntimeError, and has taken nothing, where no thread can be had for it.
        """
        answer = steps.answer
        with self._lock:
            if self._thread is None:
                given = self._asked, weakref.ref(self)
                thread = threading.Thread(target=_serve, args=given, name="crew", daemon=True)
                thread.start()
                self._thread = thread
            self._asked.put(steps)
        return answer

    def play(self, first: LentSteps) -> None:
        """Plays some steps, and all that are asked for meanwhile."""
        playing = self._begin([_Member(first)])
        while playing:
            playing = self._round(playing)

    def _begin(self, members: "Sequence[_Member]") -> "list[tuple[_Member, Action]]":
        """The next step of each that has one, and of those that were asked for meanwhile."""
        begun = []
        for member in [*members, *self._new()]:
            action = None
            try:
                action = member.steps.begin()
            except BaseException as error:
                member.error = error
            if action is not None:
                begun.append((member, action))
            elif member.untaken:
                member.over = True
            else:
                member.end()
        return begun

    def _new(self) -> "Iterator[_Member]":
        with contextlib.suppress(queue.Empty):
            while (steps := self._asked.get_nowait()) is not None:
                yield _Member(steps)

    def _round(self, playing: "list[tuple[_Member, Action]]") -> "list[tuple[_Member, Action]]":
        """A step of each, and meanwhile the last ones are taken in. Returns the next ones."""
        sessions, actions = [member.steps.session for member, _ in playing], [action for _, action in playing]
        played = self._step_all(sessions, actions, self._take_in)
        self._take_in()  # where nothing called it
        going_on = []
        for (member, _), found in zip(playing, played, strict=True):
            if isinstance(found, BaseException):
                member.error = member.error or found
            else:
                member.steps.arrive(found)
                member.untaken = True
                if member.steps.at_once:
                    member.take_in()
                elif member.error is None:
                    self._untaken.append(member)
            if member.error is None:
                going_on.append(member)
            else:
                member.end()
        begun = self._begin(going_on)
        if begun:
            return begun
        self._take_in()
        return self._begin([])

    def _take_in(self) -> None:
        """Takes in what was played before, and gives back those who have no other step under way."""
        untaken, self._untaken = self._untaken, []
        for member in untaken:
            member.take_in()
            if member.over:
                member.end()


def _serve(asked: "queue.SimpleQueue[LentSteps | None]", of: "weakref.ref[Crew]") -> None:
    """The thread of a crew, which it does not keep alive while it waits."""
    while (first := asked.get()) is not None:
        crew = of()
        if crew is None:  # who asked has let it go meanwhile
            first.give_back(RuntimeError("the crew of this step is gone"))
            return
        crew.play(first)
        del crew, first
