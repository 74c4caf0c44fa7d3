"""Gymnasium: a world in this process and one behind a bridge are the same environment, bit for bit."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_sb3

import playhead.engine.agents
from playhead.engine.agents import RemoteVectorEnv, RemoteWorldEnv, WorldEnv, WorldVectorEnv
from playhead.engine.session import Session
from playhead.world.errors import PlayheadError
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import serve_process


@pytest.fixture(params=["here", "remote"])
def env(request, tiny_world, tiny_scene):
    options = {"max_ticks": 20, "render_mode": "rgb_array"}
    if request.param == "here":
        made = WorldEnv(tiny_world, scene=tiny_scene, **options)
    else:
        server = request.getfixturevalue("server")
        made = RemoteWorldEnv(server.address, **options)
    yield made
    made.close()


def green(frames, action, info) -> float:
    return float(frames[..., 1].mean()) / 255


def test_both_checkers_have_nothing_to_say(env):
    check_env(env, skip_render_check=False)
    check_sb3(env, warn=False)


def test_ppo_learns_on_both(env):
    env._reward = green
    model = PPO("CnnPolicy", env, n_steps=32, batch_size=16, n_epochs=1, device="cpu", seed=0)
    before = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(64)
    assert model.num_timesteps == 64
    assert any((a != b).any() for a, b in zip(before, model.policy.parameters(), strict=True))


def test_an_episode_is_what_a_session_with_the_same_actions_dreams(env, tiny_world):
    observation, info = env.reset(seed=SEED)
    session = Session(tiny_world, make_tiny_context(), SEED)
    assert np.array_equal(observation, session.frames[-1]) and info["seed"] == SEED
    draws = np.random.default_rng(0)
    for tick in range(1, 21):
        row = draws.integers(0, 2, 8)
        observation, reward, terminated, truncated, info = env.step(row)
        frames = session.step(tiny_world.config.action.decode(row))
        assert np.array_equal(info["frames"], frames) and np.array_equal(env.render(), frames[-1])
        assert (reward, terminated, truncated, info["tick"]) == (0, False, tick == 20, tick)


def test_a_reward_sees_frames_action_and_info(env):
    seen = []
    env._reward = lambda *given: seen.append(given) or 2.5
    env.reset(seed=0)
    action = np.array([1, 0, 0, 0, 0, 0, 0, 0])
    assert env.step(action)[1] == 2.5
    frames, given, info = seen[0]
    assert frames.shape == (1, 64, 64, 3) and given is action and info["tick"] == 1


def test_episodes_without_a_seed_differ_and_repeat_after_a_seed(env):
    def films() -> list[np.ndarray]:
        env.reset(seed=4)
        dreams = []
        for _ in range(2):
            env.reset()
            dreams.append(env.step(np.zeros(8, int))[0])
        return dreams

    first, again = films(), films()
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_an_environment_whose_server_is_gone_says_so_also_when_another_is_there(
    tiny_world_folder, tiny_scene
):
    with serve_process(tiny_world_folder, tiny_scene) as (process, address):
        env = RemoteWorldEnv(address)
        env.reset(seed=1)
        process.kill()
        process.wait()
        with pytest.raises(PlayheadError, match="is lost; connect again"):
            env.step(np.zeros(8, int))
    with (
        serve_process(tiny_world_folder, tiny_scene, bind=address),
        pytest.raises(PlayheadError, match="is lost; connect again"),
    ):
        env.reset(seed=1)
    env.close()


def test_wrong_options_are_refused_and_the_episode_goes_on(env):
    env.reset(seed=1)
    for wrong in ({"scene": "../../etc/passwd"}, {"scene": "nowhere"}, {"place": 1}):
        with pytest.raises(PlayheadError):
            env.reset(options=wrong)
    env.step(np.zeros(8, int))


@pytest.mark.parametrize("where", ["here", "remote"])
def test_a_vector_of_worlds_dreams_what_each_alone_would(request, where, tiny_world, tiny_scene):
    if where == "here":
        vector = WorldVectorEnv(3, tiny_world, scene=tiny_scene, max_ticks=12)
    else:
        vector = RemoteVectorEnv(3, address=request.getfixturevalue("server").address, max_ticks=12)
    alone = [WorldEnv(tiny_world, scene=tiny_scene, max_ticks=12) for _ in range(3)]
    seen, _ = vector.reset(seed=5)
    assert np.array_equal(seen, [e.reset(seed=5 + i)[0] for i, e in enumerate(alone)])
    draws = np.random.default_rng(0)
    for tick in range(1, 20):
        actions = draws.integers(0, 2, (3, 8))
        seen, rewards, ended, over, _ = vector.step(actions)
        if tick == 13:  # the step after an episode's end begins the next one
            assert np.array_equal(seen, [e.reset()[0] for e in alone])
            continue
        wanted = [e.step(a) for e, a in zip(alone, actions, strict=True)]
        assert np.array_equal(seen, [w[0] for w in wanted])
        assert over.tolist() == [w[3] for w in wanted] == [tick == 12] * 3
        assert not ended.any() and not rewards.any()
    vector.close()
    assert where == "here" or not request.getfixturevalue("server").sessions


def test_the_shipped_world_is_made_by_its_name():
    assert playhead.engine.agents
    env = gymnasium.make("playhead.engine.agents:playhead/Freedoom-v0", max_ticks=3)
    observation, _ = env.reset(seed=0, options={"scene": "acid-garden"})
    assert env.observation_space.contains(observation) and observation.shape == (160, 256, 3)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]
    vector = gymnasium.make_vec("playhead/Freedoom-v0", 2, vectorization_mode="vector_entry_point")
    assert vector.reset(seed=0)[0].shape == (2, 160, 256, 3)


def test_a_closed_environment_says_so(server):
    """It spoke of what `None` has no attribute of."""
    env = RemoteWorldEnv(server.address)
    env.reset(seed=SEED)
    env.close()
    with pytest.raises(PlayheadError, match="closed"):
        env.step(np.zeros(8, np.int8))
    with pytest.raises(PlayheadError, match="closed"):
        env.reset(seed=SEED)
    env.close()
