"""Several sessions of one world stepped together, in one forward pass where that changes no bit.

The layers that take tokens one by one run over all sessions at once; attention looks at each session's own
cache. Whether a kernel gives the same numbers for more rows is its own affair, so it is found out: for each
number of sessions the first tick is computed both ways, and where any bit differs they are stepped one after
the other from then on. Sessions may be at different ticks, scenes and seeds.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from playhead.engine.session import COMMITS, Session
from playhead.world.action import Action
from playhead.world.rest import Rest
from playhead.world.world import World, WorldState

LARGEST = 8
"""Sessions in one pass; the rest follow in the next."""
_exact: "WeakKeyDictionary[World, dict[tuple[int, int], bool]]" = WeakKeyDictionary()
"""For each world: whether so many sessions on so many threads may share a pass."""


def step_together(sessions: Sequence[Session], actions: Sequence[Action]) -> list[np.ndarray]:
    """Steps each session under its action. Returns each one's frames, as `Session.step` would."""
    frames: list[np.ndarray] = []
    for at in range(0, len(sessions), LARGEST):
        frames += _step(sessions[at : at + LARGEST], actions[at : at + LARGEST])
    return frames


def may_join(session: Session) -> bool:
    """Whether a session can share a pass: it has no state but the cache and the decoder.

    Recorded graphs are faster than a joint pass that is not, so a GPU steps one session after the other.
    """
    state, config = session._state, session.world.config
    return not (
        state.graphs.enabled
        or state.memory is not None
        or state.keys_values
        or config.looks_at_picture
        or state.recent.shape[1]
        or state.fresh
        or config.sampling.first_steps
        or config.action.commands
    )


def _step(sessions: Sequence[Session], actions: Sequence[Action]) -> list[np.ndarray]:
    world = sessions[0].world
    for session in sessions:
        session.finish()
    exact = _exact.setdefault(world, {})
    key = len(sessions), torch.get_num_threads()
    if len(sessions) < 2 or exact.get(key) is False or not _alike(sessions):
        return [s.step(a) for s, a in zip(sessions, actions, strict=True)]
    if key not in exact:
        before = [session.snapshot() for session in sessions]
        joint = _joint_step(world, sessions, actions)
        after = [session.snapshot().state for session in sessions]
        for session, snapshot in zip(sessions, before, strict=True):
            session.restore(snapshot)
        frames = [s.step(a) for s, a in zip(sessions, actions, strict=True)]
        exact[key] = all(
            np.array_equal(a, b) and _same(state, session.snapshot().state)
            for a, b, state, session in zip(joint, frames, after, sessions, strict=True)
        )
        return frames
    return _joint_step(world, sessions, actions)


def _alike(sessions: Sequence[Session]) -> bool:
    """Whether a joint pass is possible: all may join, are of one world and have equal steps."""
    first = sessions[0]
    return all(s.world is first.world and s.steps == first.steps and may_join(s) for s in sessions)


@torch.no_grad()
def _joint_step(world: World, sessions: Sequence[Session], actions: Sequence[Action]) -> list[np.ndarray]:
    """A tick of all of them, whose commit is under way when it returns, as after `Session.step`."""
    states = [session._state for session in sessions]
    with world.turn:
        for session, action in zip(sessions, actions, strict=True):
            shape = (1, world.config.sampling.latents_per_tick, -1)
            rows = world.config.action.tensor(action).expand(shape)
            world.draw(session._state, rows, [session.seed], session.tick)
        joint: Any = Joint(world, states)
        world._denoise(joint, joint.schedule)
        for i, state in enumerate(states):
            state.latent.copy_(joint.latent[i : i + 1])
        commit = COMMITS.submit(_commit, world, joint, states)
        if not world.side_by_side:
            commit.exception()
        world._decode(joint)
        joint.scatter(states)
    return [session.arrive(commit) for session in sessions]


@torch.no_grad()
def _commit(world: World, joint: "Joint", states: Sequence[WorldState]) -> None:
    if not world.last_pass_commits:
        world._commit(joint)
    for state in states:
        state.committed()  # a session at rest takes note of what is kept
        state.end()


class Joint(WorldState):
    """The states of several sessions, side by side for one pass."""

    def __init__(self, world: World, states: Sequence[WorldState]) -> None:
        for state in states:
            world._begin(state)
        self.batch = len(states)
        self.schedule = states[0].schedule
        self.noises = torch.cat([s.noises for s in states], 1)
        self.action = torch.cat([s.action for s in states])
        self.latent = torch.cat([s.latent for s in states])
        self.cos_sin = torch.stack([s.cos_sin for s in states], 1).unsqueeze(2)  # (2, B, 1, tokens, head_dim)
        memories = [s.decoder_memory or [] for s in states]
        self.decoder_memory = [torch.cat(parts) for parts in zip(*memories, strict=True)]
        self.decoder_ahead = None
        self.fresh = False
        self.memory, self.keys_values, self.previous = None, {}, None
        self.condition = torch.cat([s.condition for s in states])
        rests = [s.rest for s in states if s.rest is not None]
        self.rest = Rest.beside(rests) if rests else None
        self.pictures = {}
        self.cache: Any = _Caches([s.cache for s in states])

    def scatter(self, states: Sequence[WorldState]) -> None:
        """Hands each session its pictures and its decoder memory."""
        ((count, pictures),) = self.pictures.items()
        for i, state in enumerate(states):
            if count not in state.pictures:
                state.pictures[count] = torch.empty_like(pictures[i : i + 1])
            state.pictures[count].copy_(pictures[i : i + 1])
            state.frames = state.pictures[count]
            assert self.decoder_memory is not None
            state.keep_decoder_memory([m[i : i + 1] for m in self.decoder_memory])


class _Caches:
    """Attention of every session to its own cache."""

    def __init__(self, caches: Sequence[Any]) -> None:
        self._caches = caches

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = (c.attend(layer, *(x[i : i + 1] for x in (q, k, v))) for i, c in enumerate(self._caches))
        return torch.cat(list(each))


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401 - states are nested
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b
