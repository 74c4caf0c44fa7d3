"""Played sessions as data: training reads them, and Minari loads them, frame for frame."""

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
import torch

from playhead import main as command_line
from playhead.engine.agents import WorldEnv
from playhead.engine.session import Session
from playhead.render.export import minari as minari_export
from playhead.render.export.episodes import ExportedTick, check_episodes, without_cuts, write_episode
from playhead.render.export.export import ExportError
from playhead.render.export.minari import check_minari, write_minari
from playhead.world.action import RE_ANCHOR, Action, ActionSpace
from playhead.world.checkpoint import save_weights
from playhead.world.training.footage import Footage, read_episode
from playhead.world.training.pipeline import write_config
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world
from tests.world.training.runs import CONFIG, metrics

TICKS = 12
HELD = [Action(frozenset(BUTTONS[t % 8 : t % 8 + t % 3])) for t in range(TICKS)]


def moments(world: World, seed: int = 3) -> Iterator[ExportedTick]:
    session = Session(world, make_tiny_context(), seed)
    yield ExportedTick(0, None, session.frames)
    for tick, action in enumerate(HELD, 1):
        yield ExportedTick(tick, action, session.step(action))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def test_an_episode_says_what_was_held_from_each_frame_to_the_next(tiny_world: World, tmp_path: Path) -> None:
    seen = list(moments(tiny_world))
    assert write_episode(tmp_path / "e.npz", tiny_world.config.action, "cellar", iter(seen)) == TICKS + 1
    episode = read_episode(tmp_path / "e.npz")
    assert np.array_equal(episode.frames, np.concatenate([m.frames for m in seen]))
    assert (episode.place, episode.seed) == ("cellar", None)
    assert [tiny_world.config.action.decode(row) for row in episode.actions[:-1]] == HELD
    assert not episode.actions[-1].any()


def test_of_several_frames_a_tick_each_knows_its_tick(tmp_path: Path) -> None:
    world = make_tiny_world(time_factor=2)
    write_episode(tmp_path / "e.npz", world.config.action, "", moments(world))
    episode = read_episode(tmp_path / "e.npz")
    start = len(episode.frames) - 2 * TICKS
    for tick, action in enumerate(HELD):
        for row in episode.actions[start - 1 + 2 * tick : start + 1 + 2 * tick]:
            assert world.config.action.decode(row) == action


def test_a_return_to_the_start_is_a_cut() -> None:
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    back = Action(frozenset({RE_ANCHOR}))
    held = [None, Action(), Action(), back, Action(), back]
    played = (ExportedTick(tick, action, frames) for tick, action in enumerate(held))
    assert [[m.tick for m in part] for part in without_cuts(played)] == [[0, 1, 2], [3, 4]]


def test_axes_are_refused_by_name() -> None:
    with pytest.raises(ExportError, match="axis `mouse_x`"):
        check_episodes(ActionSpace(("forward",), ("mouse_x",)))


def test_a_world_trains_on_what_was_played(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    for seed in (3, 950_000):  # the seed of a dream holds nothing out
        write_episode(footage / f"{seed}.npz", CONFIG.action, "cellar", moments(tiny_world, seed))
    assert Footage.load(footage, torch.device("cpu")).lengths == [TICKS + 1] * 2
    write_config(tmp_path / "recipe.toml", CONFIG)
    save_weights(tmp_path / "autoencoder.safetensors", tiny_world.autoencoder.state_dict())
    options = {"footage": footage, "out": tmp_path / "run", "recipe": tmp_path / "recipe.toml", "steps": 2}
    options |= {"autoencoder": tmp_path / "autoencoder.safetensors", "length": 6, "clips": 2, "device": "cpu"}
    words = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["main.py", "train", "generator", *words])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == 0
    assert metrics(tmp_path / "run")
    assert World.load(tmp_path / "run" / "world", "cpu").config.action == CONFIG.action


def test_minari_loads_what_was_played(
    tiny_world: World, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minari_export, "CHUNK", 5)  # so that an episode is written in three parts
    seen = list(moments(tiny_world))
    check_minari("playhead/mine-v0")
    episodes = [(3, iter(seen)), (2**64 - 1, iter(seen[:4]))]
    assert write_minari("playhead/mine-v0", tiny_world.config, iter(episodes)) == 2
    dataset = minari.load_dataset("playhead/mine-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (2, TICKS + 3)
    env = WorldEnv(tiny_world)
    assert (dataset.observation_space, dataset.action_space) == (env.observation_space, env.action_space)
    whole, short = dataset.iterate_episodes()
    assert np.array_equal(whole.observations, [m.frames[-1] for m in seen])
    assert [tiny_world.config.action.decode(row) for row in whole.actions] == HELD
    assert not whole.rewards.any() and not whole.terminations.any()
    assert whole.truncations.tolist() == [False] * (TICKS - 1) + [True]
    assert whole.infos["tick"].tolist() == list(range(TICKS + 1))
    assert (len(short), short.truncations.tolist()) == (3, [False, False, True])
    about = list(dataset.storage.get_episode_metadata([0, 1]))
    assert [(a["seed"], a["total_steps"]) for a in about] == [(3, TICKS), (2**64 - 1, 3)]
    with pytest.raises(ExportError, match="already"):
        check_minari("playhead/mine-v0")


def test_the_environment_of_a_shipped_world_is_recovered(datasets: Path) -> None:
    world = World.load("freedoom", "cpu")
    frames = np.zeros((1, 160, 256, 3), np.uint8)
    played = [ExportedTick(0, None, frames), ExportedTick(1, Action(frozenset({"forward"})), frames)]
    write_minari("mine-v0", world.config, [(0, iter(played))])
    dataset = minari.load_dataset("mine-v0")
    env = dataset.recover_environment()
    assert isinstance(env.unwrapped, WorldEnv)
    named = gymnasium.make(dataset.spec.env_spec.id)  # it is registered under the name that the data set has
    assert isinstance(named.unwrapped, WorldEnv) and named.observation_space == dataset.observation_space
    assert not dataset.storage.metadata.get("requirements")  # no distribution of a name that nobody has
    assert isinstance(env.reset(seed=1)[0], np.ndarray)
    assert isinstance(env, gymnasium.Env)


def test_an_interrupted_data_set_is_not_there(tiny_world: World, datasets: Path) -> None:
    def broken() -> Iterator[ExportedTick]:
        yield from list(moments(tiny_world))[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_minari("mine-v0", tiny_world.config, [(0, broken())])
    check_minari("mine-v0")
    assert minari.list_local_datasets() == {}


@pytest.mark.parametrize("name", ["mine", "a b-v0", "-v", ""])
def test_a_name_that_minari_does_not_take_is_named(name: str, datasets: Path) -> None:
    with pytest.raises(ExportError, match="playhead/mine-v0"):
        check_minari(name)


def test_without_minari_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ExportError, match=r"pip install -e '\.\[data\]'"):
        check_minari("mine-v0")
