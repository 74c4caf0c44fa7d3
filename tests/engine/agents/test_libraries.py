"""The libraries that people bring take the environments as they are: of one frame a tick, and of twelve."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pygame
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.play import play
from gymnasium.wrappers import RecordVideo
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_sb3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from playhead.engine.agents import RemoteWorldEnv, WorldEnv, WorldVectorEnv
from playhead.world.errors import PlayheadError, WorldError
from playhead.world.world import World
from tests.conftest import save_world
from tests.engine.agents.conftest import make_kind
from tests.engine.bridge.conftest import serving

NAME = "playhead.engine.agents:playhead/Freedoom-v0"
"""Found also by a process that has not imported `engine.agents`."""
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


@pytest.fixture(scope="module", params=["one frame", "twelve frames"])
def options(request, tmp_path_factory) -> dict[str, str]:
    """The world and the scene of an environment, as folders."""
    folder = tmp_path_factory.mktemp("kind")
    kind = "pass" if request.param == "one frame" else "matrix-game-2"
    world, scene = make_kind(kind, folder)
    where = save_world(world, folder / "world") if kind == "pass" else folder / kind
    return {"world": str(where), "scene": str(scene)}


@pytest.fixture
def make(options, monkeypatch) -> Callable[..., gymnasium.Env]:
    """Makes an environment by its name, where there is no display."""
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    return lambda **more: gymnasium.make(NAME, **options, **more)


def idle(env) -> np.ndarray:
    return np.zeros(env.action_space.shape, env.action_space.dtype)


@pytest.mark.filterwarnings("error")
def test_the_checkers_have_nothing_to_say_without_a_display(make):
    env = make(render_mode="rgb_array", max_ticks=20).unwrapped
    assert env.metadata["render_modes"] == ["rgb_array"]
    check_env(env)
    check_sb3(env, warn=False)  # it would rather have all actions of a world with axes from -1 on


def test_a_person_may_watch_where_there_is_a_display(make, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make(render_mode="human", max_ticks=20).unwrapped
    assert env.metadata["render_modes"] == ["rgb_array", "human"]
    check_env(env)
    env.close()
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PlayheadError, match="no display to open a window on"):
        make(render_mode="human").reset()


def test_a_person_plays_by_gymnasium_s_own_window(make, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env, ticks = make(render_mode="rgb_array"), []
    forward = idle(env)
    forward[0] = 1
    pygame.init()
    pygame.event.clear()

    def watch(before, after, action, reward, terminated, truncated, info) -> None:
        ticks.append(info["tick"])
        if len(ticks) == 3:
            pygame.event.post(pygame.Event(pygame.QUIT))

    play(env, fps=100, keys_to_action={"w": forward}, noop=idle(env), callback=watch, seed=0)
    assert ticks == [1, 2, 3]
    env.reset(seed=0)
    fps = env.metadata["render_fps"]
    assert type(fps) is int and abs(fps - env.metadata["ticks_per_second"]) <= 0.5
    pygame.quit()


def dream(env) -> list[np.ndarray]:
    return [env.reset(seed=4)[0], *(env.step(idle(env))[0] for _ in range(2))]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_an_environment_of_its_own(make, options, copied):
    for env in (make(max_ticks=2), WorldEnv(World.load(options["world"]), scene=options["scene"])):
        wanted = dream(env)
        twin = copied(env)
        with pytest.raises(gymnasium.error.ResetNeeded):
            twin.unwrapped.step(idle(twin))
        assert np.array_equal(dream(twin), wanted)
        assert env.unwrapped._max_ticks == twin.unwrapped._max_ticks
    assert (twin._world is env._world) == (copied is copy.deepcopy)


def test_a_copy_of_a_remote_environment_has_a_session_of_its_own(options):
    with serving(World.load(options["world"]), options["scene"]) as server:
        env = RemoteWorldEnv(server.address)
        wanted = dream(env)
        twins = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
        assert len(server.sessions) == 3
        assert all(np.array_equal(dream(twin), wanted) for twin in twins)
        for one in (env, *twins):
            one.close()


def test_a_world_that_was_built_says_that_it_cannot_be_pickled(tiny_world, tiny_scene):
    env = WorldEnv(tiny_world, scene=tiny_scene)
    with pytest.raises(WorldError, match="cannot be pickled; load it from a folder"):
        pickle.dumps(env)
    assert np.array_equal(dream(copy.deepcopy(env)), dream(env))


def test_stable_baselines_plays_in_processes_of_its_own(options):
    envs = make_vec_env(NAME, 2, seed=3, vec_env_cls=SubprocVecEnv, env_kwargs=dict(options, max_ticks=3))
    first = envs.reset()
    alone = WorldEnv(**options, max_ticks=3)
    assert np.array_equal(first[0], alone.reset(seed=3)[0])
    for _ in range(4):
        seen, _, over, infos = envs.step(np.array([idle(alone)] * 2))
    assert seen.shape == (2, *alone.observation_space.shape) and not over.any()
    assert [info["tick"] for info in infos] == [1, 1]
    envs.close()


def test_stable_baselines_learns(options):
    model = PPO("CnnPolicy", WorldEnv(**options, max_ticks=8), n_steps=16, batch_size=16, n_epochs=1,
                device="cpu", seed=0)  # fmt: skip
    assert model.learn(16).num_timesteps == 16


def test_a_video_is_recorded(make, tmp_path):
    pytest.importorskip("moviepy", reason="needs moviepy (the extra `agents`)")
    env = RecordVideo(make(render_mode="rgb_array", max_ticks=3), str(tmp_path), disable_logger=True)
    env.reset(seed=0)
    while not env.step(idle(env))[3]:
        pass
    env.close()
    assert [path.stat().st_size > 0 for path in tmp_path.glob("*.mp4")] == [True]


@pytest.mark.parametrize("mode", [None, "Disabled"])
def test_torchrl_rolls_out(options, mode):
    roll_out(options, mode)


def test_torchrl_rolls_out_worlds_of_one_frame_a_tick_in_same_step_mode_too(tiny_world_folder, tiny_scene):
    """It then stacks infos, which have equally many frames in such worlds only."""
    roll_out({"world": str(tiny_world_folder), "scene": str(tiny_scene)}, "SameStep")


def roll_out(options, mode) -> None:
    libs = pytest.importorskip("torchrl.envs", reason="needs torchrl (the extra `dev`)")
    if mode is None:
        env = libs.GymEnv(NAME, max_ticks=3, **options)
    else:
        env = libs.GymWrapper(WorldVectorEnv(2, max_ticks=3, autoreset_mode=mode, **options))
    libs.check_env_specs(env)
    env.set_seed(0)
    found = env.rollout(7, break_when_any_done=False)["next", "truncated"].reshape(-1, 7)
    assert found.int().tolist() == [[0, 0, 1, 0, 0, 1, 0]] * len(found)
    env.close()


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_gymnasium_s_own_vectors_play_worlds_of_one_frame_a_tick(
    tmp_path, tiny_world_folder, tiny_scene, mode
):
    options = {"world": tiny_world_folder, "scene": tiny_scene, "max_ticks": 3}
    how = {"context": "spawn"} if mode == "async" else {}  # a fork would inherit torch's threads, and wait
    vector = gymnasium.make_vec(NAME, 2, vectorization_mode=mode, vector_kwargs=how, **options)
    mine = WorldVectorEnv(2, **options)
    assert np.array_equal(vector.reset(seed=1)[0], mine.reset(seed=1)[0])
    for _ in range(5):
        seen, wanted = (v.step(np.zeros((2, 8), np.int8)) for v in (vector, mine))
        assert np.array_equal(seen[0], wanted[0]) and np.array_equal(seen[3], wanted[3])
    vector.close()


def final_frames(infos: dict, at: int) -> np.ndarray:
    return infos["final_info"]["frames"][at]


def test_a_vector_begins_anew_as_gymnasium_names_it(options, tmp_path: Path):
    same, following, never = (
        WorldVectorEnv(2, **options, max_ticks=2, autoreset_mode=mode)
        for mode in ("SameStep", gymnasium.vector.AutoresetMode.NEXT_STEP, "Disabled")
    )
    rows = np.array([idle(same.envs[0])] * 2)
    for vector in (same, following, never):
        assert vector.metadata["autoreset_mode"] == vector.autoreset_mode
        vector.reset(seed=1)
        vector.step(rows)
    last = following.step(rows)
    begun, _, _, truncated, infos = same.step(rows)
    assert truncated.all() and np.array_equal(np.stack(infos["final_obs"]), last[0])
    for at in range(2):
        assert np.array_equal(final_frames(infos, at), last[4]["frames"][at])
    assert infos["final_info"]["tick"].tolist() == [2, 2] and infos["tick"].tolist() == [0, 0]
    assert np.array_equal(begun, following.step(rows)[0])
    assert np.array_equal(never.step(rows)[0], last[0])
    with pytest.raises(PlayheadError, match="environment 0 is over"):
        never.step(rows)
    assert np.array_equal(never.reset(options={"reset_mask": np.array([True, True])})[0], begun)
    assert never.step(rows)[4]["tick"].tolist() == [1, 1]
    with pytest.raises(PlayheadError, match="no autoreset mode `Sometimes`; there are NextStep"):
        WorldVectorEnv(2, **options, autoreset_mode="Sometimes")
