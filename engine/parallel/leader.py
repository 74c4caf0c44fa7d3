"""The first of several ranks: it tells the others what its sessions do, and learns when one of them is gone.

What is told are method calls of sessions, in the order in which they are carried out here. A follower does
the same, so that wherever a pass needs all ranks all are at that pass.
"""

import itertools
import logging
import os
import shutil
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np

from playhead.world.context import Context
from playhead.world.errors import PlayheadError, WorldError
from playhead.world.parallel.ranks import Ranks
from playhead.world.parallel.state_parts import outline
from playhead.world.world import World

P = ParamSpec("P")
R = TypeVar("R")
NOTICED = 5.0
"""Seconds after which a rank whose end made a pass fail here has been noticed."""
PATIENCE = 20.0
"""Seconds that a call may take to end after a rank did; then the program ends without it."""
LOST = 2
"""The exit status then."""


class LedSession(Protocol):
    """What is asked here of a `Session`."""

    world: World
    context: Context
    number: int


class Call(NamedTuple):
    """What a follower is to do: `method` of its session of that number, after it was given `context`.

    `forgotten`: the numbers of sessions that there are no more.
    """

    session: int
    method: str
    given: tuple[Any, ...] = ()
    context: Context | None = None
    forgotten: tuple[int, ...] = ()


class Leader:
    """The followers of a world, each at the other end of a connection.

    `folder`: where they meet, which stays until the end: torch may look into it.
    """

    def __init__(self, ranks: Ranks, folder: Path | None = None) -> None:
        self.ranks, self._folder = ranks, folder
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self.lost = ""  # in a sentence, which rank is gone
        self._raised = False  # whether somebody was told so
        self._noticed = threading.Event()
        self._turn = threading.RLock()
        self._depth = 0  # of calls in calls: what a follower's session does by itself is not told
        self._numbers = itertools.count()
        self._contexts: weakref.WeakKeyDictionary[LedSession, Context] = weakref.WeakKeyDictionary()
        self._gone: deque[int] = deque()  # sessions that were let go of, by whichever thread
        self._closing = False

    def add(self, connection: Connection, process: BaseProcess | None = None) -> None:
        """Takes in the next follower; `process`: if it was started here."""
        self._connections.append(connection)
        if process is not None:
            self._processes.append(process)

    def load(self, name: str, settings: dict[str, Any]) -> None:
        """Has the followers load the world too. Raises WorldError where one of them cannot."""
        for connection in self._connections:
            self._send_to(connection, (name, settings))

    def loaded(self) -> None:
        """Waits until they have; from then on one that ends is noticed."""
        self._await("loaded")
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def ready(self) -> None:
        """Waits until all followers are there. Raises WorldError where one is not."""
        self._await("ready")

    def begin(self, session: LedSession) -> int:
        """The number of a new session, which the followers begin as well."""
        with self._turn:
            number = next(self._numbers)
            if not self._depth:
                self._tell(Call(number, "begin", (session.context,)))
            self._contexts[session] = session.context
            weakref.finalize(session, self._gone.append, number)
            return number

    @contextmanager
    def call(self, session: LedSession, number: int, method: str, given: tuple[Any, ...]) -> Iterator[None]:
        """A method of a session, meanwhile carried out here, that the followers carry out too.

        Raises WorldError where a rank was lost before it or in it.
        """
        with self._turn:
            self.check()
            if not self._depth:
                known = self._contexts.get(session)
                context = session.context if session.context is not known else None
                self._tell(Call(number, method, given, context))
                self._contexts[session] = session.context
            self._depth += 1
            try:
                yield
            except PlayheadError:
                raise
            except Exception:
                self._noticed.wait(NOTICED)
                self.check()
                raise
            finally:
                self._depth -= 1
            self.check()

    def check(self) -> None:
        """Raises WorldError where a rank is gone: what was computed with it is worth nothing."""
        if self.lost:
            self._raised = True
            raise WorldError(self.lost)

    def close(self) -> None:
        """Has the followers end."""
        self._closing = True
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(NOTICED)
            if process.is_alive():
                process.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _tell(self, call: Call) -> None:
        forgotten = []
        while self._gone:
            forgotten.append(self._gone.popleft())
        told = call._replace(forgotten=tuple(forgotten), given=tuple(map(_outlined, call.given)))
        for connection in self._connections:
            self._send_to(connection, told)

    def _send_to(self, connection: Connection, what: object) -> None:
        try:
            connection.send(what)
        except OSError:  # its other end is gone
            self._noticed.wait(NOTICED)
            self.check()
            raise WorldError(self._sentence(self._connections.index(connection) + 1, "")) from None

    def _await(self, word: str) -> None:
        for number, connection in enumerate(self._connections, 1):
            try:
                said, text = connection.recv()
            except (EOFError, OSError):
                said, text = "failed", ""
            if said == "refused":
                raise WorldError(text)
            if said != word:
                raise WorldError(self._sentence(number, text))

    def _watch(self) -> None:
        """Waits for the first word of a follower, which is its last, or for its end."""
        ready = wait(self._connections)
        if self._closing:
            return
        (connection, *_) = ready
        assert isinstance(connection, Connection)
        try:
            _, text = connection.recv()
        except (EOFError, OSError):
            text = ""
        if self._closing:
            return
        self.lost = self._sentence(self._connections.index(connection) + 1, text)
        self._noticed.set()
        self.ranks.abort()
        since = time.monotonic()
        while not self._raised:
            if self._depth and time.monotonic() - since > PATIENCE:  # a pass that never comes back
                print(f"playhead: {self.lost}", file=sys.stderr, flush=True)
                logging.shutdown()
                os._exit(LOST)
            time.sleep(0.2)

    def _sentence(self, rank: int, text: str) -> str:
        where = f"{rank} of {self.ranks.size}"
        if text:
            return f"rank {where} failed ({text}), so the session ends; what was played until then is kept"
        how = ""
        if self._processes:
            process = self._processes[rank - 1]
            process.join(1)
            code = process.exitcode
            how = "" if code is None else f", by signal {-code}" if code < 0 else f", with status {code}"
        return f"rank {where} has ended{how}, so the session ends; what was played until then is kept"


def _outlined(given: object) -> object:
    """A snapshot without what is in its tensors, which ranks deal out themselves."""
    state = getattr(given, "state", None)
    if not isinstance(state, dict):
        return given
    return replace(given, state=outline(state), frames=np.zeros(0, np.uint8))  # type: ignore[type-var]


_leaders: "weakref.WeakKeyDictionary[World, Leader]" = weakref.WeakKeyDictionary()


def lead(world: World, leader: Leader) -> None:
    """Has the sessions of a world tell `leader` what they do."""
    _leaders[world] = leader


def leader_of(world: World) -> Leader | None:
    """Who tells the followers of a world; None where there are none, or this is one."""
    return _leaders.get(world) if world.split is not None else None


def on_all_ranks(method: Callable[P, R]) -> Callable[P, R]:
    """A method of a session that every rank of its world carries out."""

    @wraps(method)
    def act(*given: P.args, **named: P.kwargs) -> R:
        session: Any = given[0]
        leader = leader_of(session.world)
        if leader is None:
            return method(*given, **named)
        with leader.call(session, session.number, method.__name__, (*given[1:], *named.values())):
            return method(*given, **named)

    return act
