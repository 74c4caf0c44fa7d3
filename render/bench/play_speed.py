"""Measuring play: the real loop and a real window, with nothing to wait for between ticks.

Every tick is drawn with its HUD and shown, on the display or, where there is none, on SDL's dummy one.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from playhead.engine.clock import Clock
from playhead.engine.frame_copy import FrameCopy
from playhead.engine.loop import Loop
from playhead.engine.mailbox import Mailbox
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.engine.timeline.timeline import Timeline
from playhead.render.window.hud import draw_hud
from playhead.render.window.scaling import draw_picture
from playhead.render.window.window import Window, wake
from playhead.scenes.scene import Scene
from playhead.world.action import Action, ActionSpace
from playhead.world.past import enter
from playhead.world.world import World

SETTLE = 20
"""Ticks that are not counted, at least: the first ones find cold caches."""


def settle(world: World) -> int:
    """Ticks that are not counted: where passes are recorded, every slot was seen by then, full and not."""
    sampling = world.config.sampling
    rounds = 2 if world.device.type == "cuda" else 1
    return max(SETTLE, rounds * sampling.window // sampling.latents_per_tick + 2)


class RandomSource:
    """A source of actions that never ends: random chords of the world's buttons, held for a while each."""

    def __init__(self, space: ActionSpace, seed: int = 0) -> None:
        self._space, self._random = space, np.random.default_rng(seed)
        self._action, self._left = Action(), 0

    def sample(self) -> Action:
        if not self._left:
            count = int(self._random.integers(0, 3))
            buttons = self._space.seen
            chosen = self._random.choice(buttons, count).tolist() if buttons else []
            self._action = Action(frozenset(chosen))
            self._left = int(self._random.integers(3, 20))
        self._left -= 1
        return self._action


class UnpacedClock(Clock):
    """A clock whose next tick is always due."""

    def wait(self) -> float:
        return 0.0


@dataclass
class PlayTimes:
    """Times in seconds, a list entry a tick; all but `start` begin when the input is sampled."""

    start: float = 0.0
    to_frame: list[float] = field(default_factory=list)
    to_display: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Ticks per second, commit and display included."""
        return len(self.apart) / sum(self.apart)


def bench_play(
    world: World, scene: Scene, ticks: int, began: float, timeline: Timeline | None = None
) -> PlayTimes:
    """Plays `ticks` ticks as fast as they come; with a `timeline` at the world's own pace, into that.

    `began`: when the process started to load, for `start`.
    """
    config = world.config
    measured, uncounted = PlayTimes(), settle(world)
    previous: float | None = None
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)  # comparing attention backends takes more than play

    def count(tick: Tick) -> None:
        nonlocal previous
        if tick.action is None or tick.number <= uncounted:
            return
        measured.to_frame.append(tick.timing.ready - tick.timing.sampled)
        if previous is not None:
            measured.apart.append(tick.timing.ready - previous)
        previous = tick.timing.ready

    def open_session() -> Session:
        session = Session(world, scene.context, scene.seed, scene)
        session.warm_up()
        if timeline is not None:
            timeline.begin(session)
        return session

    loop = Loop(
        open_session,
        RandomSource(config.action),
        last=ticks + uncounted,
        make_clock=UnpacedClock if timeline is None else Clock,
        timeline=timeline,
    )
    loop.subscribe(count)

    def time_display(tick: Tick, shown: float) -> None:
        if tick.number == 1 and tick.action is not None:
            measured.start = shown - began
        if tick.action is not None and tick.number > uncounted:
            measured.to_display.append(shown - tick.timing.sampled)

    show(loop, world, scene, time_display)
    return measured


def show(
    loop: Loop, world: World, scene: Scene, shown: Callable[[Tick, float], None] = lambda tick, when: None
) -> None:
    """Runs a loop to its end before a window with a HUD. `shown` is told each tick and when it was seen."""
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    window = Window((world.config.frame_width, world.config.frame_height))
    mailbox: Mailbox[Tick] = Mailbox()

    def receive(tick: Tick) -> None:
        if mailbox.put(tick):
            wake()

    loop.subscribe(receive)
    try:
        loop.start()
        while loop.alive:
            window.events(0.25)
            tick = mailbox.take()
            if tick is None:
                continue
            draw_picture(window.screen, tick.frames[-1])
            if loop.stats is not None:
                draw_hud(window.screen, loop.stats, scene.title)
            window.show()
            shown(tick, time.perf_counter())
    finally:
        loop.stop()
        window.close()
        loop.join()


def bench_stages(world: World, scene: Scene, ticks: int) -> dict[str, list[float]]:
    """Seconds of each stage of a tick, each waited for: denoise, decode, copy to main memory, commit.

    What play does of the next tick while a GPU is busy is done beforehand.
    """
    state = world.new_state()
    enter(world, state, scene.context, [scene.seed])
    held = world.config.action.tensor(Action()).expand(1, world.config.sampling.latents_per_tick, -1)
    times: dict[str, list[float]] = {name: [] for name in ("denoise", "decode", "copy", "commit")}
    warm = settle(world)
    copy = FrameCopy()

    def fetch() -> None:
        copy.start(state.frames)
        copy.take()

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        times[name].append(time.perf_counter() - began)

    for tick in range(warm + ticks):
        timed("denoise", partial(world.denoise, state, held, [scene.seed], tick))
        timed("decode", lambda: world.decode(state))
        timed("copy", fetch)
        timed("commit", lambda: world.commit(state))
        if world.device.type == "cuda":
            world.foresee(state, [scene.seed], tick + 1)
    return {name: values[warm:] for name, values in times.items()}
