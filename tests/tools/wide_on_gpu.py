"""Proofs of wide passes that need a GPU: `python -m tests.tools.on_gpu --only wide`.

Sessions of the shipped world in recorded passes of one width dream what plain ticks dream, but for rounding,
at ticks of their own; company and the row change no bit; and what each width costs is printed.
"""

import numpy as np
import torch

from playhead.engine.session import Session
from playhead.scenes.scene import scenes_of
from playhead.world.action import Action
from playhead.world.wide import width_choice as choice
from playhead.world.world import World

TICKS = 24
CLOSE = 2
"""Grey levels of 255 that the mean pixel may be apart in float32."""


def held(world: World, tick: int, number: int) -> Action:
    draws = np.random.default_rng((tick, number))
    return Action(frozenset(b for b in world.config.action.buttons if draws.random() < 0.3))


def sessions(world: World, count: int) -> list[Session]:
    starts = scenes_of(world.config)
    return [Session(world, starts[n % len(starts)].context, n, starts[n % len(starts)]) for n in range(count)]


def prove(device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        plain, wide = (World.load("freedoom", device, dtype) for _ in range(2))
        wide.widen(8)
        alone, crowd = sessions(plain, 5), sessions(wide, 5)
        twins = [session.fork() for session in crowd[:2]]
        apart = []
        for tick in range(TICKS):
            who = [n for n in range(5) if tick % (n + 1) == 0]
            actions = [held(plain, tick, n) for n in who]
            found = Session.step_joined([crowd[n] for n in who], actions)
            for n, action, frames in zip(who, actions, found, strict=True):
                apart.append(float(np.abs(alone[n].step(action).astype(int) - frames).mean()))
                if n < 2:
                    same = np.array_equal(twins[n].step(action), frames)
                    assert same, f"{dtype}: company changes session {n} in tick {tick}"
        assert wide.wide is not None
        (passes, *_) = wide.wide._passes
        print(
            f"wide passes, {dtype}: {np.mean(apart):.3f} of 255 from plain ones, {max(apart):.3f} at most; "
            f"{passes._graphs.recorded} recorded; company changes no bit; rows alike: "
            f"{choice.is_exact(wide, 8)}"
        )
        assert not passes._graphs.failure, passes._graphs.failure
        assert dtype != torch.float32 or max(apart) <= CLOSE
    for width in (2, 8, 16, 64):
        world = World.load("freedoom", device)
        found = choice.measure(world, width)
        print(f"width {width}: {'wide' if found.width else 'not wide'}, {found.finding}")
