"""Footage of a Gymnasium environment: its buttons are declared, its episodes are whole and repeatable."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from playhead.world.training.doom import CollectError
from playhead.world.training.footage import Footage, read_episode
from playhead.world.training.gym_collect import ButtonMapping, collect_env, film_env
from playhead.world.training.pipeline import read_recipe


class Bar(gymnasium.Env):
    """A bar whose height is the number of the action held; it ends after `end` steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, actions: spaces.Space | None = None, end: int = 10**6):
        self.action_space = actions if actions is not None else spaces.Discrete(4)
        self.observation_space = spaces.Discrete(2)
        self.end, self.render_mode = end, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now, self.last, self.tint = 0, 0, int(self.np_random.integers(256))
        return 0, {}

    def step(self, action):
        self.now, self.last = self.now + 1, int(np.sum(action))
        return 0, 0.0, self.now >= self.end, False, {}

    def render(self):
        picture = np.full((70, 90, 3), self.tint, np.uint8)
        picture[: 10 * self.last] = 255 - self.tint
        return picture


gymnasium.register("PlayheadBar-v0", Bar)


@pytest.mark.parametrize(
    ("space", "count"),
    [
        (spaces.Discrete(4), 3),
        (spaces.Discrete(3, start=5), 2),
        (spaces.MultiDiscrete([3, 2]), 3),
        (spaces.MultiBinary(5), 5),
    ],
    ids=str,
)
def test_every_drawn_set_of_buttons_is_an_action_of_the_game(space: spaces.Space, count: int) -> None:
    buttons = ButtonMapping(Bar(actions=space))
    assert len(buttons.names) == len(set(buttons.names)) == count
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        action = buttons.given(buttons.draw(rng))
        assert space.contains(action)
        seen.add(str(action))
    assert len(seen) == {3: 4, 2: 3, 5: 32}[count] if count != 3 or isinstance(space, spaces.Discrete) else 6


def test_the_action_that_does_nothing_is_what_holding_nothing_gives() -> None:
    buttons = ButtonMapping(Bar(), noop=2)
    assert buttons.given(np.zeros(3, np.uint8)) == 2
    assert [buttons.given(row) for row in np.eye(3, dtype=np.uint8)] == [0, 1, 3]


def test_what_is_filmed_can_be_trained_on(tmp_path: Path) -> None:
    files = collect_env("PlayheadBar-v0", 3, 40, 7, tmp_path)
    config = read_recipe(tmp_path / "recipe" / "world.toml")
    assert (config.frame_height, config.frame_width, config.ticks_per_second) == (64, 64, 12)
    footage = Footage.load(tmp_path, "cpu")
    assert footage.frames.shape == (120, 64, 64, 3) and footage.actions.shape == (120, 3)
    assert config.action.buttons == ("action_1", "action_2", "action_3")
    one = read_episode(files[0])
    led = one.actions[:-1] @ np.array([1, 2, 3])  # the bar of a frame is of the action before it
    height = (np.abs(one.frames[1:, :, 0, 0].astype(int) - one.frames[1:, -1:, 0, 0]) > 60).sum(1)
    assert one.seed == 7 and np.corrcoef(led, height)[0, 1] > 0.99


def test_a_steady_player_holds_one_thing_for_long_and_often_nothing(tmp_path: Path) -> None:
    (file,) = collect_env("PlayheadBar-v0", 1, 4000, 7, tmp_path, steady=0.5)
    actions = read_episode(file).actions
    ends = np.flatnonzero((actions[1:] != actions[:-1]).any(1))
    lengths = np.diff([-1, *ends, len(actions) - 1])
    assert 0.3 < lengths[lengths >= 48].sum() / len(actions) < 0.7
    rests = [not actions[end].any() for end, n in zip(ends, lengths, strict=False) if n >= 48]
    assert 0.3 < np.mean(rests) < 0.9
    (other,) = collect_env("PlayheadBar-v0", 1, 4000, 7, tmp_path)
    assert other == file and not np.array_equal(read_episode(file).actions, actions)


def test_an_episode_is_a_function_of_its_seed_and_has_no_cut(tmp_path: Path) -> None:
    first, again = (collect_env("PlayheadBar-v0", 2, 30, 3, tmp_path / n) for n in ("a", "b"))
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in again]
    env = Bar(render_mode="rgb_array", end=20)
    with pytest.raises(CollectError, match="shorter --length"):
        film_env(env, ButtonMapping(env), 0, 40, (64, 64))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "NoSuchGame-v0"}, "cannot be made"),
        ({"name": "Pendulum-v1"}, "Discrete"),
        ({"noop": 9}, "--noop 9"),
        ({"size": (50, 64)}, "multiples of 32"),
    ],
)
def test_what_cannot_be_filmed_is_said_in_a_sentence(change: dict, words: str, tmp_path: Path) -> None:
    given = {"name": "PlayheadBar-v0", **change}
    with pytest.raises(CollectError, match=words):
        collect_env(given.pop("name"), 1, 5, 0, tmp_path, **given)
    assert not list(tmp_path.glob("*.npz"))
