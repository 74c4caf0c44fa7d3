"""Sessions in lockstep whose steps one thread plays: a pass for all that are asked for one.

A loop of its own for every session costs a tick several changes of threads, which is more than its share of a
wide pass on a GPU. While a session stands still its loop lends it here, after what was asked of it before.
"""

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # it imports torch, and a window opens before that
    from playhead.engine.session import Session
    from playhead.world.action import Action


class LentSteps(Protocol):
    """A session that is lent for some steps: each is begun, played and taken in, on the crew's thread.

    After `give_back` the session belongs to its loop again.
    """

    session: "Session"
    answer: "Future[None]"

    def begin(self) -> "Action | None":
        """The next step's action, None where no step is left. Raises what keeps it from being played."""
        ...

    def take(self, frames: np.ndarray) -> None:
        """Takes in the step that was played."""
        ...

    def give_back(self, error: BaseException | None) -> None:
        """Lets the loop go on, and answers."""
        ...


StepAll = Callable[[Sequence["Session"], Sequence["Action"]], Sequence[np.ndarray | BaseException]]


class Crew:
    """Plays the steps of lent sessions by `step_all`, which gives each one's frames or its error.

    Its thread begins with the first of them, and ends once nobody has the crew any more.
    """

    def __init__(self, step_all: StepAll) -> None:
        self._step_all = step_all
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
        playing = self._begin([first])
        while playing:
            playing = self._round(playing)

    def _begin(self, members: "Sequence[LentSteps]") -> "list[tuple[LentSteps, Action]]":
        """The next step of each that has one, and of those that were asked for meanwhile."""
        begun = []
        for steps in [*members, *self._new()]:
            try:
                action = steps.begin()
            except BaseException as error:
                steps.give_back(error)
                continue
            if action is None:
                steps.give_back(None)
            else:
                begun.append((steps, action))
        return begun

    def _new(self) -> "Iterator[LentSteps]":
        with contextlib.suppress(queue.Empty):
            while (steps := self._asked.get_nowait()) is not None:
                yield steps

    def _round(self, playing: "list[tuple[LentSteps, Action]]") -> "list[tuple[LentSteps, Action]]":
        """A step of each. Returns the next ones."""
        played = self._step_all([steps.session for steps, _ in playing], [action for _, action in playing])
        going_on = []
        for (steps, _), found in zip(playing, played, strict=True):
            try:
                if isinstance(found, BaseException):
                    raise found
                steps.take(found)
            except BaseException as error:
                steps.give_back(error)
            else:
                going_on.append(steps)
        return self._begin(going_on)


def _serve(asked: "queue.SimpleQueue[LentSteps | None]", of: "weakref.ref[Crew]") -> None:
    """The thread of a crew, which it does not keep alive while it waits."""
    while (first := asked.get()) is not None:
        crew = of()
        if crew is None:  # who asked has let it go meanwhile
            first.give_back(RuntimeError("the crew of this step is gone"))
            return
        crew.play(first)
        del crew, first
