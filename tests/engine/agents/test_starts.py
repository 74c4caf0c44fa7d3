"""Where episodes begin: under any seed, and after any other, a scene starts as a session of its own would."""

import numpy as np
import pytest

from playhead.engine.agents import RemoteWorldEnv, WorldEnv
from playhead.engine.session import Session
from playhead.scenes.scene import load_scene
from tests.engine.agents.conftest import KINDS, make_kind
from tests.engine.bridge.conftest import serving


@pytest.mark.parametrize("where", ["here", "remote"])
@pytest.mark.parametrize("kind", [*KINDS, "matrix-game-2"])
def test_an_episode_does_not_depend_on_the_seeds_of_those_before(kind, where, tmp_path):
    """One-pass worlds take their past in under noise of the seed, so that one start is not like another."""
    world, scene = make_kind(kind, tmp_path)
    space = world.config.action
    row = np.arange(len(space.buttons) + len(space.axes)) % 2
    if where == "here":
        dreams = [play(WorldEnv(world, scene=scene), row)]
    else:
        with serving(world, scene) as server:
            envs = [RemoteWorldEnv(server.address) for _ in range(2)]
            dreams = [play(env, row) for env in envs]
            for env in envs:
                env.close()
    for dreamed in dreams:
        for seed, frames in dreamed:
            session = Session(world, load_scene(scene).context, seed)
            for _ in range(2):
                session.step(space.decode(row))
            assert np.array_equal(frames, session.frames)


def play(env, row) -> list[tuple[int, np.ndarray]]:
    """Two ticks of three episodes: their seeds and last frames."""
    dreamed = []
    for seed in (3, 4, 3):
        env.reset(seed=seed)
        env.step(row)
        dreamed.append((seed, env.step(row)[4]["frames"]))
    return dreamed
