"""What the bridge costs: a step's round trip beyond its tick, and what watchers cost a live session's ticks.

The server and the watchers are processes of their own, on loopback, with raw frames.
"""

import contextlib
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import playhead
from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.stats import WINDOW
from playhead.world.action import Action
from playhead.world.errors import PlayheadError

MAIN = Path(playhead.__file__).with_name("main.py")
"""What starts Playhead, installed or not."""
SETTLE = 20
"""Steps that are not counted: the first ones find cold caches."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each step in lockstep: its tick as the server says, and what its round trip took beyond."""

    ticks: list[float]
    beyond: list[float]


@dataclass(frozen=True)
class WatchedPhase:
    """A stretch of a live session with so many watchers: ticks that overran their budget, and of how many."""

    watchers: int
    missed: int
    counted: int
    tick_p50: float
    tick_p99: float


@contextlib.contextmanager
def served(
    world: str, scene: Path | None, device: str, *options: str, said: list[str] | None = None
) -> Iterator[str]:
    """A server in a process of its own, with further `options` of `serve`. Yields its address.

    `said` is given the lines that it printed further, once it has ended.
    """
    command = [sys.executable, str(MAIN), "serve", "--bind", "tcp://127.0.0.1:*", "--world", world]
    process = subprocess.Popen(
        [*command, "--device", device, *(["--scene", str(scene)] if scene is not None else []), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " at " not in line:
            raise PlayheadError(process.communicate()[1].strip().removeprefix("playhead: "))
        yield line.split()[-1]
    finally:
        process.terminate()
        further = process.communicate()[0]
        if said is not None:
            said += further.splitlines()


def bench_steps(address: str, steps: int) -> StepTimes:
    """Steps a session one action at a time, as fast as the answers come."""
    client = Client(address, "bench")
    try:
        opened, _ = client.ask(p.OpenRequest(), p.OpenReply)
        step = p.StepRequest(session=opened.session, actions=[Action(frozenset(opened.world.buttons[:1]))])
        ticks, beyond = [], []
        for count in range(SETTLE + steps):
            began = time.perf_counter()
            stepped, frames = client.ask(step, p.StepReply)
            took = time.perf_counter() - began
            assert frames is not None
            if count >= SETTLE:
                ticks.append(stepped.tick_seconds)
                beyond.append(took - stepped.tick_seconds)
        client.ask(p.CloseRequest(session=opened.session), p.DoneReply)
        return StepTimes(ticks, beyond)
    finally:
        client.close()


def bench_watchers(address: str, counts: list[int], ticks: int) -> Iterator[WatchedPhase]:
    """Has live sessions watched by each of these numbers of watchers in turn, for so many ticks each."""
    client = Client(address, "bench")
    try:
        for count in counts:
            session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
            with _watching(address, client, session, count):
                client.ask(p.TuneRequest(session=session, clock="live"), p.DoneReply)
                yield _phase(client, session, count, ticks)
            client.ask(p.CloseRequest(session=session), p.DoneReply)
    finally:
        client.close()


def _phase(client: Client, session: str, watchers: int, ticks: int) -> WatchedPhase:
    """Adds up the statistics of so many ticks, a window of them at a time."""
    missed = counted = 0
    p50 = p99 = 0.0
    last = 0
    window = min(ticks, WINDOW)
    while counted < ticks:
        time.sleep(0.02)
        stats = client.ask(p.StatsRequest(session=session), p.StatsReply)[0].stats
        if stats["tick"] - last >= stats["counted"] >= window:
            last, window = stats["tick"], stats["counted"]
            missed, counted = missed + stats["missed"], counted + window
            p50, p99 = stats["tick_p50"], max(p99, stats["tick_p99"])
    return WatchedPhase(watchers, missed, counted, p50, p99)


@contextlib.contextmanager
def _watching(address: str, client: Client, session: str, count: int) -> Iterator[None]:
    """So many watchers of a session that stands at its start, all of which have seen it by now."""
    spawn = multiprocessing.get_context("spawn")
    seen = spawn.Semaphore(0)
    processes = [
        spawn.Process(target=_watch, args=(address, session, seen), daemon=True) for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            while not seen.acquire(timeout=0.1):
                if not process.is_alive():
                    raise PlayheadError("a watcher of the benchmark ended early; try again")
                client.ask(p.ResetRequest(session=session), p.ObserveReply)
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _watch(address: str, session: str, seen: Semaphore) -> None:
    client = Client(address, "watcher")
    socket = client.watch(session)
    socket.recv_multipart()
    seen.release()
    while True:
        socket.recv_multipart()
