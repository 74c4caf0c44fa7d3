"""Requests of every kind by the thousand to one server that records: what becomes of its memory?"""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.world.action import Action
from tests.conftest import BUTTONS
from tests.engine.bridge.conftest import serve_process

SESSIONS = 6
"""That are open at a time, at the most."""
LIVES = 250
"""Requests after which a client leaves, with its sessions, and another comes."""


class Soaker:
    """A client who asks for anything that there is, in no order."""

    def __init__(self, address: str, draw: random.Random, saves: Path) -> None:
        self._client, self._draw, self._saves = Client(address, "soaker"), draw, saves
        self._sessions: dict[str, p.Clock] = {}
        self._ticks: dict[str, int] = {}
        self._snapshots: dict[str, list[str]] = {}
        self._saved = 0

    def ask(self) -> None:
        """Asks for one thing. What is refused, as may be, counts too."""
        draw = self._draw
        if not self._sessions:
            self._open()
            return
        session = draw.choice(list(self._sessions))
        ways = [self._step] * 6 + [self._act] * 4 + [
            self._observe, self._keep, self._restore, self._fork, self._branch, self._save, self._tune,
            self._reset, self._figures, self._watch, self._close, self._worlds,
        ]  # fmt: skip
        if len(self._sessions) >= SESSIONS:
            self._close(session)
            return
        if draw.random() < 0.03:
            self._open()
            return
        draw.choice(ways)(session)

    def leave(self) -> None:
        """Closes what is open, and goes."""
        for session in list(self._sessions):
            self._close(session)
        self._client.close()

    def _took_in(self, opened: p.OpenReply) -> None:
        self._sessions[opened.session], self._ticks[opened.session] = opened.clock, opened.tick
        self._snapshots[opened.session] = []

    def _open(self) -> None:
        clock: p.Clock = self._draw.choice(("lockstep", "lockstep", "live"))
        self._took_in(
            self._client.ask(p.OpenRequest(clock=clock, seed=self._draw.randrange(99)), p.OpenReply)[0]
        )

    def _action(self) -> Action:
        return Action(frozenset(self._draw.sample(BUTTONS, self._draw.randrange(3))))

    def _step(self, session: str) -> None:
        if self._sessions[session] == "lockstep":
            held = [self._action() for _ in range(self._draw.randint(1, 8))]
            self._ticks[session] = self._client.ask(
                p.StepRequest(session=session, actions=held), p.StepReply
            )[0].tick

    def _act(self, session: str) -> None:
        if self._sessions[session] == "live":
            tap = self._draw.random() < 0.5
            self._client.ask(p.ActRequest(session=session, action=self._action(), tap=tap), p.ActReply)
        else:
            self._step(session)

    def _observe(self, session: str) -> None:
        self._client.ask(p.ObserveRequest(session=session), p.ObserveReply)

    def _keep(self, session: str) -> None:
        name = self._client.ask(p.SnapshotRequest(session=session), p.SnapshotReply)[0].snapshot
        self._snapshots[session].append(name)

    def _restore(self, session: str) -> None:
        if self._snapshots[session]:
            name = self._draw.choice(self._snapshots[session])
            reply, _ = self._client.ask(p.RestoreRequest(session=session, snapshot=name), p.ObserveReply)
            self._ticks[session] = reply.tick

    def _fork(self, session: str) -> None:
        self._took_in(self._client.ask(p.ForkRequest(session=session), p.OpenReply)[0])

    def _branch(self, session: str) -> None:
        request = p.BranchRequest(session=session, tick=self._draw.randint(0, self._ticks[session]))
        self._took_in(self._client.ask(request, p.OpenReply)[0])

    def _save(self, session: str) -> None:
        self._saved += 1
        name = f"soak-{self._saved}"
        self._client.ask(p.SaveRequest(session=session, name=name), p.SaveReply)
        (self._saves / f"{name}.playhead").unlink()  # so that the folder does not fill

    def _tune(self, session: str) -> None:
        clock: p.Clock = self._draw.choice(("lockstep", "live"))
        self._client.ask(
            p.TuneRequest(session=session, clock=clock, speed=2.0 if clock == "live" else None), p.DoneReply
        )
        self._sessions[session] = clock

    def _reset(self, session: str) -> None:
        self._client.ask(p.ResetRequest(session=session, seed=self._draw.randrange(99)), p.ObserveReply)
        self._ticks[session] = 0

    def _figures(self, session: str) -> None:
        self._client.ask(p.StatsRequest(session=session), p.StatsReply)

    def _watch(self, session: str) -> None:
        with self._client.watch(session, self._draw.choice(("raw", "jpeg", "h264"))) as watcher:
            self._observe(session)
            watcher.poll(50)

    def _close(self, session: str) -> None:
        self._client.ask(p.CloseRequest(session=session), p.DoneReply)
        del self._sessions[session]

    def _worlds(self, session: str) -> None:
        self._client.ask(p.WorldsRequest(), p.WorldsReply)
        self._client.ask(p.PingRequest(), p.PongReply)


def soak(
    world: Path, scene: Path, folder: Path, count: int, every: int,
    tell: Callable[[int, float], None] = lambda asked, memory: None, seed: int = 0,
) -> tuple[list[float], float]:  # fmt: skip
    """Asks so many things of a server of its own. Returns its memory in MB, after every so many, while nobody
    is there; and the seconds that it took to end at SIGTERM.
    """
    draw, memory = random.Random(seed), list[float]()
    with serve_process(world, scene, "--recordings", str(folder), "--rate", "1000000") as (process, address):
        resident = psutil.Process(process.pid).memory_info
        soaker = Soaker(address, draw, folder)
        for asked in range(1, count + 1):
            try:
                soaker.ask()
            except BridgeError as refused:
                assert refused.code in ("bad_value", "unknown_snapshot", "busy"), refused
            if asked % LIVES == 0:
                soaker.leave()
                if asked % every == 0:
                    time.sleep(1.5)  # a sweep, that closes what has ended
                    memory.append(resident().rss / 2**20)
                    tell(asked, memory[-1])
                soaker = Soaker(address, draw, folder)
        soaker.leave()
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        ending = time.perf_counter() - began
    return memory, ending
