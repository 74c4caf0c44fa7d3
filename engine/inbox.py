"""Commands for a thread that plays: others leave them, it carries them out between two ticks."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

Answer = TypeVar("Answer")
Command = Callable[[], None]


class Inbox:
    """Commands in the order in which they came; may be filled by any thread.

    Once it is closed, whoever asked or still asks is told the error that `refusal` makes.
    """

    def __init__(self, refusal: Callable[[], Exception]) -> None:
        self._commands: queue.SimpleQueue[Command | _Loan] = queue.SimpleQueue()
        self._refusal, self._closed = refusal, False
        self._lock = threading.Lock()
        self._left = 0  # commands that are not carried out yet
        self.turn = threading.Lock()  # held by whoever carries out something on what the thread owns

    def lend(self) -> bool:
        """Takes the turn where nothing is left to be done, so that another thread may do something.

        It has to release `turn` then. What is asked meanwhile waits.
        """
        with self._lock:
            return not self._left and not self._closed and self.turn.acquire(blocking=False)

    def lend_later(self, take: Callable[[], bool], answer: "Future[Answer]") -> "Future[Answer]":
        """The same once all is done that was asked before: `take` is called with the turn.

        It says whether it hands the turn on to another thread, which then has to release it. `answer`: who
        waits for it.
        """
        self.put(_Loan(take, answer))
        if self._closed:
            self._refuse()
        return answer

    def __len__(self) -> int:
        return self._commands.qsize()

    def put(self, command: "Command | _Loan") -> None:
        with self._lock:
            self._left += 1
        self._commands.put(command)

    def ask(self, work: Callable[[], Answer]) -> Future[Answer]:
        """Has `work` called. Its answer or error comes in the future."""
        answer: Future[Answer] = Future()
        self.put(_PendingCommand(lambda: fulfil(answer, work), answer))
        if self._closed:
            self._refuse()
        return answer

    def obey(self) -> None:
        """Carries out the next command, as soon as there is one and nobody else has the turn."""
        command = self._commands.get()
        self.turn.acquire()
        handed_on = False
        try:
            if isinstance(command, _Loan):
                handed_on = command.handed_on()
            else:
                command()
        finally:
            if not handed_on:
                self.turn.release()
            with self._lock:
                self._left -= 1
        if handed_on:
            with self.turn:  # whose thread this is may not go on, nor end, while another has its turn
                pass

    def wake(self) -> None:
        """Lets `obey` return, with nothing to do."""
        self.put(lambda: None)

    def close(self) -> None:
        """Lets nobody wait for what is not carried out any more."""
        self._closed = True
        self._refuse()

    def _refuse(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if isinstance(command, _PendingCommand | _Loan) and not command.answer.done():
                command.answer.set_exception(self._refusal())


def fulfil(answer: Future[Answer], work: Callable[[], Answer]) -> None:
    """Does some work, whose answer or error comes in the future."""
    try:
        found = work()
    except Exception as error:
        answer.set_exception(error)
    else:
        answer.set_result(found)


@dataclass(frozen=True)
class _PendingCommand:
    """A command that somebody waits for."""

    obey: Command
    answer: Future[Any]

    def __call__(self) -> None:
        self.obey()


@dataclass(frozen=True)
class _Loan:
    """What another thread is to do, once it is its turn; somebody waits for it."""

    take: Callable[[], bool]
    answer: Future[Any]

    def handed_on(self) -> bool:
        """Takes it, and says whether the turn was handed on."""
        try:
            return self.take()
        except Exception as error:
            self.answer.set_exception(error)
            return False
