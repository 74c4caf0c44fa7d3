"""Somebody who plays over a line, without a window; and a long play over a line that keeps breaking."""

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from playhead.engine.bridge.client.remote_loop import RemoteLoop
from playhead.engine.bridge.client.remote_session import RemoteSession, SessionOptions
from playhead.engine.bridge.server.server import Server
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import BUTTONS, SEED, make_tiny_context
from tests.engine.bridge.cable import Cable

NONE = Action()


class Hand:
    """A source of actions that is told what to hold."""

    def __init__(self) -> None:
        self.action = NONE

    def sample(self) -> Action:
        return self.action


class Seat:
    """Somebody who plays over a line: what is seen, and what is said."""

    def __init__(self, address: str, **options) -> None:
        wanted = SessionOptions(**{"codec": "raw", **options.pop("wanted", {})})
        self.hand, self.ticks, self.said = Hand(), list[Tick](), list[str]()
        self.line = RemoteSession(address, None, wanted)
        self.loop = RemoteLoop(
            self.line, self.hand, key_time=time.perf_counter, complain=self.said.append, **options
        )
        self.loop.subscribe(self.ticks.append)
        self.loop.start()
        self.wait(lambda: self.ticks, "the first frame")

    def hold(self, action: Action) -> None:
        self.hand.action = action
        self.loop.poke()

    def wait(self, look: Callable[[], object], what: str) -> None:
        until = time.monotonic() + 30
        while not look():
            assert time.monotonic() < until, f"{what} did not happen; said: {self.said}"
            assert self.loop.alive, self.loop._error
            time.sleep(0.005)

    def pause_at_the_start(self) -> None:
        self.wait(lambda: self.loop.stats, "a figure")
        self.loop.toggle_pause()
        self.wait(lambda: self.loop.stats.paused, "the pause")
        begun = self.begun
        self.loop.restart()
        self.wait(lambda: self.begun > begun, "the restart")

    def step(self) -> np.ndarray:
        number = self.ticks[-1].number + 1
        self.loop.single_step()
        self.wait(lambda: self.ticks[-1].number == number, f"tick {number}")
        return self.ticks[-1].frames

    @property
    def begun(self) -> int:
        """How often the session began."""
        return sum(tick.action is None for tick in self.ticks)

    @property
    def state(self) -> str:
        return self.loop.stats.link.state


@contextmanager
def seat(address: str, **options) -> Iterator[Seat]:
    made = Seat(address, **options)
    try:
        yield made
    finally:
        made.loop.stop()
        made.loop.join()


def play_over_a_breaking_line(server: Server, world: World, breaks: int, seed: int = 0) -> None:
    """Random keys while the line is cut or left dangling again and again: one session, not a frame wrong.

    Every frame that was seen is what the session's actions dream, ticks never go back, and nothing is left
    behind by connections that are gone.
    """
    draw = random.Random(seed)
    cable = Cable(server.address)
    with seat(cable.address) as player:
        session = player.line.opened.session
        player.wait(lambda: player.ticks[-1].number > 2, "some ticks")
        threads = None
        for count in range(breaks):
            for _ in range(draw.randrange(1, 12)):
                player.hold(Action(frozenset(draw.sample(BUTTONS, draw.randrange(3)))))
                time.sleep(draw.uniform(0, 0.06))
            draw.choice((cable.cut, cable.dangle))()
            player.wait(lambda: "no connection" in player.state, "the state")
            time.sleep(draw.uniform(0, 0.3))
            cable.cut()
            cable.mend()
            number = player.ticks[-1].number
            player.wait(lambda number=number: player.ticks[-1].number > number + 1, "more ticks")
            assert player.line.opened.session == session and player.state == ""
            gc.collect()
            if count == 1:
                threads = threading.active_count()
        assert threads is None or threading.active_count() <= threads + 2
        player.loop.toggle_pause()
        player.wait(lambda: player.loop.stats.paused, "the pause")
        (hosted,) = server.sessions
        past = hosted.loop.ask(lambda _: hosted.ticks()).result()
    cable.close()
    numbers = [tick.number for tick in player.ticks]
    assert numbers == sorted(numbers) and player.begun == 1
    alone, dreamed = Session(world, make_tiny_context(), SEED), {}
    for tick, played in enumerate(past, 1):
        dreamed[tick] = alone.step(played.action)
    seen = [tick for tick in player.ticks if 0 < tick.number <= len(past)]
    assert len(seen) > breaks
    assert all(np.array_equal(tick.frames, dreamed[tick.number]) for tick in seen)
