"""What a server makes of many players at once: clients in processes of their own, each with a session that it
steps as fast as the answers come.
"""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import cast

import numpy as np
import zmq

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.world.action import Action
from playhead.world.errors import PlayheadError

Results = Connection
"""Brings how many ticks a client's process had and what its requests took, or why it could not play."""
OPENING = 300.0
"""Seconds that all sessions may take to open, and a warm-up to pass."""
WARM = 2.0
"""Seconds of play that are not counted: buffers are found, and sessions fall into step."""
PROCESSES = 16
"""Clients' processes at the most."""


@dataclass(frozen=True)
class ServedTicks:
    """Ticks that all sessions together had in `seconds`, and what each request took, seconds."""

    ticks: int
    seconds: float
    requests: list[float]

    @property
    def rate(self) -> float:
        """Ticks a second, all sessions together."""
        return self.ticks / self.seconds


def bench_clients(address: str, sessions: int, seconds: float, actions: int, frames: p.Sent) -> ServedTicks:
    """Plays so many sessions at a server for so long, `actions` random ones a request.

    `frames`: which of them are sent. Raises PlayheadError where a session cannot be had, or a client ends
    early.
    """
    spawn = multiprocessing.get_context("spawn")
    count = max(1, min(sessions, PROCESSES, len(os.sched_getaffinity(0)) // 2))
    ready = spawn.Barrier(count + 1)
    pipes, processes = [], []
    for number in range(count):
        mine, theirs = spawn.Pipe(duplex=False)
        share = [*range(sessions)][number::count]
        given = (address, share, seconds, actions, frames, ready, theirs)
        processes.append(spawn.Process(target=_play, args=given, daemon=True))
        pipes.append(mine)
        processes[-1].start()
        theirs.close()
    try:
        _meet(ready)
        found = [_result(pipe, OPENING + seconds) for pipe in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return ServedTicks(
        sum(ticks for ticks, _ in found), seconds, [took for _, times in found for took in times]
    )


def _meet(ready: Barrier) -> None:
    """Waits until all clients have their sessions; where one gave up, its result says why."""
    with contextlib.suppress(threading.BrokenBarrierError):
        ready.wait(OPENING)


def _result(pipe: "Results", seconds: float) -> tuple[int, list[float]]:
    found: tuple[int, list[float]] | str
    try:
        found = (
            cast("tuple[int, list[float]] | str", pipe.recv()) if pipe.poll(seconds) else "it took too long"
        )
    except EOFError:
        found = "it ended early"
    if isinstance(found, str):
        raise PlayheadError(f"a client of the benchmark could not play: {found}; try fewer --sessions")
    return found


def _play(
    address: str,
    share: list[int],
    seconds: float,
    actions: int,
    frames: p.Sent,
    ready: Barrier,
    result: "Results",
) -> None:
    """In a client's process: a connection and a session each, all stepped side by side."""
    try:
        players = [_Player(address, number, actions, frames) for number in share]
        ready.wait(OPENING)
        result.send(_run(players, seconds))
    except BaseException as error:
        ready.abort()
        result.send(str(error))


class _Player:
    """A client with a session in lockstep. One request is under way at a time."""

    def __init__(self, address: str, number: int, actions: int, frames: p.Sent) -> None:
        self.client = Client(address, f"player {number}", patience=OPENING)
        opened = _open(self.client, number)
        self.session, self._actions, self._frames = opened.session, actions, frames
        buttons, draws = opened.world.buttons, np.random.default_rng(number)
        self._held = [
            Action(frozenset(b for b in buttons if draws.random() < 0.3)) for _ in range(64 * actions)
        ]
        self._next = 0
        self.asked = 0.0

    def ask(self) -> None:
        at = self._next % len(self._held)
        self._next += self._actions
        request = p.StepRequest(
            session=self.session, actions=self._held[at : at + self._actions], frames=self._frames
        )
        self.asked = time.perf_counter()
        self.client.send(request)

    def take(self) -> None:
        """Takes in the reply that is there. Raises PlayheadError for another one."""
        found = self.client.receive(OPENING)
        if found is None or not isinstance(found[0], p.StepReply):
            raise PlayheadError(str(getattr(found and found[0], "message", "the server does not answer")))


def _open(client: Client, seed: int) -> p.OpenReply:
    """Opens a session; where others are being opened, again in a moment."""
    until = time.monotonic() + OPENING
    while True:
        try:
            return client.ask(p.OpenRequest(seed=seed), p.OpenReply)[0]
        except BridgeError as error:
            if error.code != "busy" or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _run(players: list[_Player], seconds: float) -> tuple[int, list[float]]:
    """Steps them for so long, after a warm-up. Returns their ticks, and what each request took."""
    poller, by_socket = zmq.Poller(), {player.client.socket: player for player in players}
    for socket in by_socket:
        poller.register(socket, zmq.POLLIN)
    for player in players:
        player.ask()
    begins = time.perf_counter() + WARM
    ends, times = begins + seconds, []
    for player, now in _answers(poller, by_socket, ends):
        if now >= begins:
            times.append(now - player.asked)
        player.ask()
    return len(times) * players[0]._actions, times


def _answers(
    poller: zmq.Poller, by_socket: dict[zmq.Socket[bytes], _Player], ends: float
) -> Iterator[tuple[_Player, float]]:
    """Each player as it is answered, until the time is over."""
    while True:
        ready = poller.poll(round(1000 * OPENING))
        if not ready:
            raise PlayheadError("the server does not answer")
        for socket, _ in ready:
            player = by_socket[socket]
            player.take()
            now = time.perf_counter()
            if now >= ends:
                return
            yield player, now
