"""What a rank does that is not the first: whatever the first one's sessions do."""

import contextlib
import os
import queue
import shutil
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch._C._distributed_c10d import FileStore, Store

from playhead.engine.parallel.leader import Call
from playhead.engine.session import Session
from playhead.world.errors import PlayheadError
from playhead.world.parallel.ranks import Ranks
from playhead.world.world import World


def follow(rank: int, size: int, device: str, store: str, connection: Connection) -> NoReturn:
    """Follows in a process of its own until the first rank is gone; they meet in the file `store`."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the first rank is told too, and then lets go of this
        signal.signal(number, signal.SIG_IGN)
    ranks = Ranks(rank, size, torch.device(device))
    follow_by(ranks, connection, FileStore(store, size), Path(store).parent)


def follow_by(
    ranks: Ranks, connection: Connection, store: Store | None = None, folder: Path | None = None
) -> NoReturn:
    """The same where `connection` leads to the first rank, whom `ranks` have met unless a `store` is given.

    `folder`: where that is; removed at the end, which the first rank may have had no time for.
    """
    status = 0
    try:
        _follow(ranks, connection, store, folder)
    except (EOFError, OSError):  # the first rank is gone
        pass
    except BaseException as error:
        text = next(iter(str(error).splitlines()), "") or type(error).__name__
        with contextlib.suppress(OSError):
            connection.send(("refused" if isinstance(error, PlayheadError) else "failed", text))
        status = 1
    os._exit(status)  # what is computed still, and whoever it waits for, is nobody's business any more


def _follow(ranks: Ranks, connection: Connection, store: Store | None, folder: Path | None) -> None:
    connection.send(("ready", ""))
    if store is not None:
        ranks.join(store)
    name, settings = connection.recv()
    world = World.load(name, **settings, ranks=ranks, device=str(ranks.device))
    world.share_cores()
    connection.send(("loaded", ""))
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls, folder), daemon=True).start()
    sessions: dict[int, Session] = {}
    count = 0
    while True:
        call = calls.get()
        for number in call.forgotten:
            sessions.pop(number, None)
        if call.method == "begin":
            made: Any = Session.unstarted(world, *call.given)
        else:
            session = sessions[call.session]
            if call.context is not None:
                session.context = call.context
            made = _carry_out(session, call.method, call.given)
        if isinstance(made, Session):  # numbers are given in the order in which sessions are made
            sessions[count] = made
            count += 1


def _carry_out(session: Session, method: str, given: tuple[Any, ...]) -> object:
    try:
        if method == "steps":
            (session.steps,) = given
            return None
        return getattr(session, method)(*given)
    except PlayheadError:  # which the first rank's session raised as well, and told whoever called it
        return None


def _listen(connection: Connection, calls: "queue.SimpleQueue[Call]", folder: Path | None) -> None:
    """Takes in what is told; where nobody is left to tell, the process ends, whatever it computes."""
    try:
        while True:
            calls.put(connection.recv())
    except (EOFError, OSError):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
