"""What no environment can play is refused in one sentence, here and on a server; nothing is changed."""

import numpy as np
import pytest

from playhead.engine.agents import RemoteVectorEnv, RemoteWorldEnv, WorldEnv, WorldVectorEnv
from playhead.world.action import ActionSpace
from playhead.world.errors import ActionError, PlayheadError
from tests.conftest import BUTTONS
from tests.engine.agents.conftest import make_kind
from tests.engine.bridge.conftest import serving

IDLE = [0] * 8


def with_value(value: float) -> list[float]:
    return [0, value, *IDLE[2:]]


WRONG = [
    (with_value(np.nan), "the button `back` is at nan; it goes from 0 to 1"),
    (with_value(2), "the button `back` is at 2; it goes from 0 to 1"),
    (with_value(-1), "the button `back` is at -1; it goes from 0 to 1"),
    (with_value(np.inf), "the button `back` is at inf; it goes from 0 to 1"),
    (IDLE[1:], r"has the shape \(8,\), not \(7,\)"),
    ([*IDLE, 0], r"has the shape \(8,\), not \(9,\)"),
    (1, r"has the shape \(8,\), not \(\)"),
    (["w"] * 8, "made of numbers"),
    (None, "made of numbers"),
    ([[0], [0, 1]], "not rows of several lengths"),
]


@pytest.fixture(params=["here", "remote"])
def make(request, tiny_world, tiny_scene):
    """Makes an environment, or a vector where a number is given."""
    made = []
    server = request.getfixturevalue("server") if request.param == "remote" else None

    def make(num_envs: int | None = None, **options):
        if server is not None:
            kind, options = RemoteWorldEnv, {"address": server.address, **options}
            kind = RemoteWorldEnv if num_envs is None else RemoteVectorEnv
        else:
            kind = WorldEnv if num_envs is None else WorldVectorEnv
            options = {"world": tiny_world, "scene": tiny_scene, **options}
        made.append(kind(**options) if num_envs is None else kind(num_envs, **options))
        return made[-1]

    make.server = server
    yield make
    for env in made:
        env.close()


@pytest.fixture
def server(tiny_world, tiny_scene):
    with serving(tiny_world, tiny_scene) as made:
        yield made


@pytest.mark.parametrize(("action", "words"), WRONG)
def test_a_wrong_action_is_refused_and_the_episode_goes_on(make, action, words):
    env, twin = make(), make()
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(ActionError, match=words):
        env.step(action)
    assert np.array_equal(env.step(np.array(IDLE))[0], twin.step(np.array(IDLE))[0])


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        *(([IDLE, action], words) for action, words in WRONG[:4]),
        ([IDLE], r"has the shape \(2, 8\), not \(1, 8\)"),
        ([IDLE] * 3, r"has the shape \(2, 8\), not \(3, 8\)"),
        ([IDLE, IDLE[1:]], "not rows of several lengths"),
        (IDLE, r"has the shape \(2, 8\), not \(8,\)"),
    ],
)
def test_wrong_actions_move_none_of_a_vector(make, actions, words):
    vector, twin = make(2), make(2)
    vector.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(ActionError, match=words):
        vector.step(actions)
    rows = np.array([IDLE, IDLE])
    seen, _, _, _, infos = vector.step(rows)
    assert np.array_equal(seen, twin.step(rows)[0]) and infos["tick"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": [1]}, "there are 1 seeds for 2 environments"),
        ({"seed": (1, 2, 3)}, "there are 3 seeds for 2 environments"),
        ({"seed": [1, -1]}, "seed -1 is no seed"),
        ({"seed": 2**64 - 1}, "seed 18446744073709551616 is no seed"),
        ({"seed": 1.5}, "1.5 is no seed"),
        ({"seed": "a"}, "'a' is no seed"),
        ({"options": {"reset_mask": np.array([True])}}, "an array of 2 bools"),
        ({"options": {"reset_mask": np.array([False, False])}}, "at least one of them true"),
        ({"options": {"reset_mask": np.array([0, 1])}}, "an array of 2 bools"),
        ({"options": {"place": 1}}, "no option `place`"),
        ({"options": {"scene": 7}}, "it has to be a scene's name"),
        ({"options": {"scene": "nowhere"}, "seed": 5}, "nowhere"),
        ({"options": ["scene"]}, "are a dict"),
    ],
)
def test_a_wrong_reset_of_a_vector_changes_none(make, given, words):
    """Nor the row of the episodes that follow without a seed."""
    vector, twin = make(2), make(2)
    vector.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(PlayheadError, match=words):
        vector.reset(**given)
    rows = np.array([IDLE, IDLE])
    assert np.array_equal(vector.step(rows)[0], twin.step(rows)[0])
    assert vector.reset()[1]["seed"].tolist() == twin.reset()[1]["seed"].tolist()


@pytest.mark.parametrize("seed", [1.5, "a", -1, 2**64, True])
def test_a_wrong_seed_changes_nothing(make, seed):
    env, twin = make(), make()
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(PlayheadError, match=f"seed {seed!r} is no seed"):
        env.reset(seed=seed)
    with pytest.raises(PlayheadError, match="nowhere"):
        env.reset(options={"scene": "nowhere"})
    assert env.reset()[1]["seed"] == twin.reset()[1]["seed"]
    assert env.reset(seed=np.int64(3))[1]["seed"] == 3


@pytest.mark.parametrize("max_ticks", [0, -1, 2.5, float("nan"), True, "4"])
def test_an_episode_of_no_length_is_refused_and_no_session_is_left_open(make, max_ticks):
    for num_envs in (None, 2):
        with pytest.raises(PlayheadError, match=f"`max_ticks` is {max_ticks}; it has to be a whole number"):
            make(num_envs, max_ticks=max_ticks)
        with pytest.raises(PlayheadError, match="no render mode `ansi`"):
            make(num_envs, render_mode="ansi")
    assert make.server is None or not make.server.sessions


@pytest.mark.parametrize("num_envs", [0, -1, 1.5])
def test_a_vector_has_one_environment_or_more(make, num_envs):
    with pytest.raises(PlayheadError, match=f"`num_envs` is {num_envs}"):
        make(num_envs)


def test_axes_go_from_end_to_end(tmp_path):
    world, scene = make_kind("matrix-game-2", tmp_path)
    env = WorldEnv(world, scene=scene)
    env.reset(seed=0)
    for value in (np.nan, 1.5, -1.5):
        with pytest.raises(ActionError, match=rf"the axis `yaw` is at {value}; it goes from -1 to 1"):
            env.step(np.array([0, 0, 0, 0, 0, 0, value]))
    assert env.step(np.array([0, 0, 0, 0, 0, -1, 1]))[4]["tick"] == 1


@pytest.mark.parametrize("value", [np.nan, 2, -1])
def test_a_row_is_checked_by_the_space_itself(value):
    with pytest.raises(ActionError, match="the button `back`"):
        ActionSpace(BUTTONS).decode(with_value(value))
