"""Vectors of every kind of world: random actions, ends of episodes, and resets of single environments."""

import numpy as np
import pytest

from playhead.engine.agents import WorldEnv
from tests.engine.agents.conftest import KINDS

PUBLIC = ("matrix-game-2", "matrix-game-2-templerun", "self-forcing", "causal-forcing")


@pytest.mark.parametrize("kind", [*KINDS, *PUBLIC])
def test_each_of_a_vector_dreams_what_it_would_alone_whenever_it_is_reset(kind, make_vector):
    """The first ticks of some worlds have fewer frames than others', and here they never come together."""
    vector, world, scene = make_vector(kind, max_ticks=4)
    alone = [WorldEnv(world, scene=scene, max_ticks=4) for _ in vector.envs]
    assert vector.single_action_space == alone[0].action_space
    seen, infos = vector.reset(seed=3)
    wanted = [env.reset(seed=3 + i) for i, env in enumerate(alone)]
    vector.action_space.seed(0)
    over, counts = [False, False], set()
    for tick in range(10):
        if tick == 2:
            mask = np.array([False, True])
            seen, infos = vector.reset(seed=9, options={"reset_mask": mask})
            assert infos["_frames"].tolist() == infos["_seed"].tolist() == [False, True]
            assert infos["frames"][0] is None
            wanted = [wanted[0], alone[1].reset(seed=10)]
            infos["frames"][0] = wanted[0][-1]["frames"]
        for i, result in enumerate(wanted):
            assert np.array_equal(seen[i], result[0])
            assert np.array_equal(infos["frames"][i], result[-1]["frames"])
            counts.add((tick, len(infos["frames"][i])))
        actions = vector.action_space.sample()
        seen, _, _, over_now, infos = vector.step(actions)
        plays = zip(alone, actions, over, strict=True)
        wanted = [env.reset() if begins else env.step(action) for env, action, begins in plays]
        over = over_now.tolist()
    if kind == "matrix-game-2":
        assert {n for _, n in counts} == {1, 9, 12} and (3, 9) in counts and (3, 12) in counts
