"""A rollout: a session played through a list of actions with nobody watching."""

from collections.abc import Iterator, Sequence

import numpy as np

from playhead.engine.session import Session
from playhead.engine.timeline.timeline import Timeline
from playhead.world.action import Action


def rolling(
    session: Session, actions: Sequence[Action], timeline: Timeline | None = None
) -> Iterator[np.ndarray]:
    """Steps through `actions`; yields each tick's frames, uint8 `(frames_per_tick, H, W, 3)`.

    A `timeline` that the session has begun on takes in every tick.

    Raises ActionError before the first tick if any action is none that the session can play. What comes out
    depends on the world, the context, the seed, the steps and the actions so far, and on nothing else.
    """
    for action in actions:
        session.check(action)
    if timeline is not None:
        return (timeline.step(session, action) for action in actions)
    return (session.step(action) for action in actions)
