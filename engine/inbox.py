"""Commands for a thread that plays: others leave them, it carries them out between two ticks."""

import queue
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
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._refusal, self._closed = refusal, False

    def __len__(self) -> int:
        return self._commands.qsize()

    def put(self, command: Command) -> None:
        self._commands.put(command)

    def ask(self, work: Callable[[], Answer]) -> Future[Answer]:
        """Has `work` called. Its answer or error comes in the future."""
        answer: Future[Answer] = Future()

        def obey() -> None:
            try:
                found = work()
            except Exception as error:
                answer.set_exception(error)
            else:
                answer.set_result(found)

        self._commands.put(_PendingCommand(obey, answer))
        if self._closed:
            self._refuse()
        return answer

    def take(self) -> Command:
        """The next command, as soon as there is one."""
        return self._commands.get()

    def wake(self) -> None:
        """Lets `take` return, with nothing to do."""
        self._commands.put(lambda: None)

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
            if isinstance(command, _PendingCommand) and not command.answer.done():
                command.answer.set_exception(self._refusal())


@dataclass(frozen=True)
class _PendingCommand:
    """A command that somebody waits for."""

    obey: Command
    answer: Future[Any]

    def __call__(self) -> None:
        self.obey()
