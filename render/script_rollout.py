"""A script played with nobody watching, for programs: from a world and a scene to one array of frames."""

from collections.abc import Callable, Sequence

import numpy as np

from playhead.controls.keymap import find_keymap
from playhead.controls.script import load_actions
from playhead.engine.rollout import rolling
from playhead.engine.session import Session
from playhead.scenes.scene import Scene, check_seed
from playhead.world.action import Action
from playhead.world.errors import ActionError
from playhead.world.world import World


def rollout(
    world: World,
    scene: Scene,
    actions: str | Sequence[Action],
    seed: int | None = None,
    steps: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> np.ndarray:
    """Plays a script (`w*20 w+right*5 space`, or a FILE.npy) or actions from a scene's start.

    Returns the frames of all ticks, uint8 `(N, H, W, 3)`. `seed`: else the scene's; `steps`: denoise steps a
    tick, else the world's. `progress` is told how many ticks of how many are done; what it raises ends the
    rollout. Equal arguments give equal frames, bit for bit, as `playhead rollout` gives them. Raises
    PlayheadError, before anything is played, for a script that is none and a scene of another world.
    """
    space = world.config.action
    if isinstance(actions, str):
        keys = find_keymap(world.config.name, world.config.family).aliases
        actions = load_actions(actions, space, keys)
    if not actions:
        raise ActionError("a rollout needs a tick or more; give a script such as w*20")
    seed = scene.seed if seed is None else seed
    check_seed(seed, "seed")
    session = Session(world, scene.context, seed, scene)
    if steps is not None:
        session.steps = steps
    played: list[np.ndarray] = []
    for frames in rolling(session, actions):
        played.append(frames)
        progress(len(played), len(actions))
    return np.concatenate(played)
