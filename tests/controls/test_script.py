"""What a script of actions promises: it says what is held, tick by tick, or which token is wrong."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.controls.script import (
    MAX_TICKS,
    ScriptSource,
    format_script,
    load_actions,
    parse_script,
    read_actions,
)
from playhead.world.action import Action, ActionSpace
from playhead.world.errors import ActionError

SPACE = ActionSpace(("forward", "back", "turn_left", "turn_right", "attack", "use"))
KEYS = {
    "w": "forward",
    "s": "back",
    "left": "turn_left",
    "right": "turn_right",
    "space": "attack",
    "left ctrl": "attack",
}

actions = st.lists(st.frozensets(st.sampled_from(SPACE.buttons)).map(Action), max_size=40)


def held(text: str) -> list[set[str]]:
    return [set(action.buttons) for action in parse_script(text, SPACE, KEYS)]


def test_chords_follow_one_another_each_as_long_as_it_says() -> None:
    assert held("w*2 w+right*3 space") == [{"forward"}] * 2 + [{"forward", "turn_right"}] * 3 + [{"attack"}]


def test_keys_and_buttons_mix() -> None:
    assert held("forward+left w+turn_left") == [{"forward", "turn_left"}] * 2


def test_a_blank_in_the_name_of_a_key_is_an_underscore() -> None:
    assert held("left_ctrl") == [{"attack"}]


@pytest.mark.parametrize("word", [".", "idle", "none"])
def test_nothing_held_has_a_word(word: str) -> None:
    assert held(f"{word}*2 w") == [set(), set(), {"forward"}]


def test_a_byte_order_mark_is_no_part_of_a_script() -> None:
    assert parse_script("\ufeffw*2", SPACE, KEYS) == parse_script("w*2", SPACE, KEYS)


def test_groups_repeat_and_nest() -> None:
    assert held("((w s)*2 .)*2 w") == ([{"forward"}, {"back"}] * 2 + [set()]) * 2 + [{"forward"}]


def test_any_blank_separates_and_an_empty_script_is_no_tick() -> None:
    assert held(" w\n\ts  ") == [{"forward"}, {"back"}]
    assert held("") == held("()*9") == []


@given(actions)
def test_a_formatted_script_gives_the_same_actions_back(actions: list[Action]) -> None:
    assert parse_script(format_script(actions), SPACE, {}) == actions


@given(st.text("ws+*().19 ", max_size=30))
def test_any_text_is_a_script_or_an_action_error(text: str) -> None:
    try:
        assert len(parse_script(text, SPACE, KEYS)) <= MAX_TICKS
    except ActionError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w jump*3", ["`jump`", "forward, back", "w, s, left, right, space, left_ctrl"]),
        ("w+jump", ["`jump` in `w+jump`"]),
        ("w+", ["`` in `w+`"]),
        ("w+.", ["`.` in `w+.`"]),
        ("w*0", ["`w*0`", "1 to 1000000"]),
        ("w*1000001", ["`w*1000001`", "1 to 1000000"]),
        ("w*-2", ["`w*-2`"]),
        ("w*two", ["`w*two`"]),
        ("w*", ["`w*`"]),
        ("w *3", ["`*`", "without blanks"]),
        ("(w*2", ["`(`"]),
        ("w*2)", ["`)`"]),
        ("(w*900000)*2", ["longer than 1000000 ticks", "`)*2`"]),
        ("(((((w*999999)*999999)*999999)*999999)*999999)", ["longer than 1000000 ticks"]),
    ],
)
def test_a_wrong_script_is_told_which_token(text: str, words: list[str]) -> None:
    with pytest.raises(ActionError) as error:
        parse_script(text, SPACE, KEYS)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


LOOKING = ActionSpace(("forward", "prompt_1"), axes=("pitch", "yaw"))
looking = st.builds(
    Action,
    st.frozensets(st.sampled_from(LOOKING.buttons)),
    st.dictionaries(st.sampled_from(LOOKING.axes), st.floats(-1, 1).filter(bool)),
)


def test_axes_are_moved_by_their_values() -> None:
    found = parse_script(
        "w+yaw=0.5*2 pitch=-1+yaw=+.25 w+1 yaw=0", LOOKING, {"w": "forward", "1": "prompt_1"}
    )
    right = Action(frozenset({"forward"}), {"yaw": 0.5})
    both = Action(frozenset({"forward", "prompt_1"}))
    assert found == [right, right, Action(axes={"pitch": -1.0, "yaw": 0.25}), both, Action()]


@given(st.lists(looking, max_size=10))
def test_a_formatted_script_moves_the_axes_as_before(actions: list[Action]) -> None:
    assert parse_script(format_script(actions), LOOKING, {}) == actions


@pytest.mark.parametrize("value", ["2", "-1.1", "nan", "", "fast", "0.5.1"])
def test_a_value_that_is_beyond_an_axis_is_named(value: str) -> None:
    with pytest.raises(ActionError, match="from -1 to 1") as problem:
        parse_script(f"w yaw={value}", LOOKING, {"w": "forward"})
    assert f"`{value}`" in str(problem.value)


def test_rows_may_have_axes_behind_the_buttons(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 0, 0, -0.5], [0, 0, 1, 0]]))
    found = read_actions(tmp_path / "a.npy", LOOKING)
    assert found == [Action(frozenset({"forward"}), {"yaw": -0.5}), Action(axes={"pitch": 1.0})]
    np.save(tmp_path / "b.npy", np.array([[1, 0], [0, 0]]))
    assert read_actions(tmp_path / "b.npy", LOOKING) == [Action(frozenset({"forward"})), Action()]
    np.save(tmp_path / "c.npy", np.array([[1, 0, 0, -1.5]]))
    with pytest.raises(ActionError, match="row 0 has an axis outside -1 to 1"):
        read_actions(tmp_path / "c.npy", LOOKING)
    np.save(tmp_path / "d.npy", np.zeros((2, 3)))
    with pytest.raises(ActionError, match=r"\(N, 2\) or \(N, 4\)"):
        read_actions(tmp_path / "d.npy", LOOKING)


@pytest.mark.parametrize("kind", [np.uint8, bool, np.float32, np.int64])
def test_an_array_is_played_row_by_row(kind: type, tmp_path: Path) -> None:
    rows = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=kind)
    np.save(tmp_path / "keys.npy", rows)
    expected = [Action(frozenset({"forward", "turn_right"})), Action()]
    assert load_actions(str(tmp_path / "keys.npy"), SPACE, KEYS) == expected


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((3, 5), np.uint8), ["uint8 (3, 5)", "(N, 6)"]),
        (np.zeros(6, np.uint8), ["uint8 (6,)"]),
        (np.zeros((3, 6), "U3"), ["<U3"]),
        (np.array([[0.0] * 6, [0.0, np.nan, 0, 0, 0, 0]]), ["row 1", "0 to 1"]),
        (np.full((2, 6), 255, np.uint8), ["row 0", "0 to 1"]),
        (np.array([[{}]]), ["no readable .npy"]),
    ],
)
def test_a_wrong_array_is_told_the_right_one(rows: np.ndarray, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "keys.npy"
    np.save(file, rows, allow_pickle=True)
    with pytest.raises(ActionError) as error:
        read_actions(file, SPACE)
    assert all(word in str(error.value) for word in ["keys.npy", *words]), str(error.value)


def test_a_file_that_is_no_array_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys.npy"
    with pytest.raises(ActionError, match=r"keys\.npy is missing"):
        read_actions(file, SPACE)
    np.save(file, np.zeros((4, 6), np.uint8))
    for wrong in (b"", b"w*20", file.read_bytes()[:-1]):
        file.write_bytes(wrong)
        with pytest.raises(ActionError, match=r"keys\.npy is no readable \.npy"):
            read_actions(file, SPACE)


def test_a_source_plays_its_actions_once_and_then_holds_nothing() -> None:
    source = ScriptSource(parse_script("w s", SPACE, KEYS))
    assert not source.done
    assert [source.sample().buttons for _ in range(2)] == [{"forward"}, {"back"}]
    assert source.done
    assert source.sample() == Action()
