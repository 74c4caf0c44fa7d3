"""Several sessions of one world stepped together, in one forward pass where that changes no bit.

The layers that take tokens one by one run over all sessions at once; attention looks at each session's own
cache (`World.tick_together`). Whether a kernel gives the same numbers for more rows is its own affair, so it
is found out: for each number of sessions the first tick is computed both ways, and where any bit differs they
are stepped one after the other from then on. Sessions may be at different ticks, scenes and seeds.

Sessions of a wide world (`World.wide`) go by passes of one width anyhow, so company changes nothing there.
"""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.world import World

LARGEST = 8
"""Sessions in one pass; others follow in the next."""
_exact: "WeakKeyDictionary[World, dict[tuple[int, int], bool]]" = WeakKeyDictionary()
"""For each world: whether so many sessions on so many threads may share a pass."""


def largest(world: World) -> int:
    """How many sessions of a world share a pass at the most."""
    return LARGEST if world.wide is None else world.wide.width


def step_together(
    sessions: Sequence[Session], actions: Sequence[Action], meanwhile: Callable[[], None] = lambda: None
) -> list[np.ndarray]:
    """Steps each session under its action. Returns each one's frames, as `Session.step` would.

    `meanwhile` is called while a device is at work on a wide pass; else nothing calls it.
    """
    frames: list[np.ndarray] = []
    most = largest(sessions[0].world) if sessions else LARGEST
    for at in range(0, len(sessions), most):
        frames += _step(sessions[at : at + most], actions[at : at + most], meanwhile)
    return frames


def _step(
    sessions: Sequence[Session], actions: Sequence[Action], meanwhile: Callable[[], None]
) -> list[np.ndarray]:
    world = sessions[0].world
    for session in sessions:
        session.finish()
    if world.wide is not None and _alike(sessions):
        return Session.step_joined(sessions, actions, meanwhile)
    exact = _exact.setdefault(world, {})
    key = len(sessions), torch.get_num_threads()
    if len(sessions) < 2 or exact.get(key) is False or not _alike(sessions):
        return [s.step(a) for s, a in zip(sessions, actions, strict=True)]
    if key not in exact:
        before = [session.snapshot() for session in sessions]
        joint = Session.step_joined(sessions, actions)
        after = [session.snapshot().state for session in sessions]
        for session, snapshot in zip(sessions, before, strict=True):
            session.restore(snapshot)
        frames = [s.step(a) for s, a in zip(sessions, actions, strict=True)]
        exact[key] = all(
            np.array_equal(a, b) and _same(state, session.snapshot().state)
            for a, b, state, session in zip(joint, frames, after, sessions, strict=True)
        )
        return frames
    return Session.step_joined(sessions, actions)


def _alike(sessions: Sequence[Session]) -> bool:
    """Whether a joint pass is possible: all may join, are of one world and have equal steps."""
    world, steps = sessions[0].world, sessions[0].steps
    return all(s.world is world and s.steps == steps and s.joins for s in sessions)


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401 - states are nested
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b
