"""What is promised of episodes that end where they began."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vizdoom

from playhead.world.metrics import psnr
from playhead.world.training import there_and_back
from playhead.world.training.doom import CollectError, begin, open_game
from playhead.world.training.places import BUTTONS, HELD_OUT, PLACES
from playhead.world.training.there_and_back import (
    EXCURSIONS,
    PAST,
    TURN,
    collect_excursions,
    film,
    is_filmed,
    plan,
    rows,
)

ROOM = PLACES["my_way_home"]


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB."""
    return float(psnr(torch.from_numpy(a), torch.from_numpy(b)))


def test_an_excursion_goes_somewhere_else_and_ends_where_it_began() -> None:
    with open_game(ROOM) as game:
        for excursion, ticks, least in (
            ("right-left", 12, 50),
            ("forward-back", 12, 25),
            ("whole-turn", TURN, 20),
        ):
            frames, actions = film(game, ROOM, HELD_OUT, excursion, ticks)
            assert len(frames) == len(actions) == PAST + len(plan(excursion, ticks))
            before, away, after = frames[PAST - 1], frames[PAST - 1 + ticks // 2], frames[-1]
            assert likeness(before, after) > least
            assert likeness(before, after) > likeness(before, away) + 5
            assert not actions[: PAST - 1].any()
            assert np.array_equal(actions[PAST - 1 : -1], plan(excursion, ticks))


def test_a_whole_turn_is_360_degrees_as_nearly_as_ticks_allow() -> None:
    """One press of the key, of any number of ticks, ends further from it."""

    def turned(actions: np.ndarray) -> float:
        with open_game(ROOM) as game:
            begin(game, ROOM, np.random.default_rng(1))
            game.make_action(rows(None, 1)[0].tolist(), 2)
            total, before = 0.0, game.get_game_variable(vizdoom.GameVariable.ANGLE)
            for action in actions:
                game.make_action(action.tolist(), 2)
                angle = game.get_game_variable(vizdoom.GameVariable.ANGLE)
                total, before = total + (before - angle + 180) % 360 - 180, angle
        return total

    off = abs(turned(plan("whole-turn", TURN)) - 360)
    assert off < 0.5
    assert off < min(abs(turned(rows("turn_right", ticks)) - 360) for ticks in (TURN, TURN + 1))


def test_the_same_place_seed_and_excursion_are_the_same_footage_whatever_was_filmed_before() -> None:
    with open_game(ROOM) as game:
        frames, _ = film(game, ROOM, HELD_OUT + 1, "right-left", 12)
        again, _ = film(game, ROOM, HELD_OUT + 1, "right-left", 12)
        longer, _ = film(game, ROOM, HELD_OUT + 1, "right-left", 24)
    assert np.array_equal(frames, again)
    assert np.array_equal(frames[: PAST + 12], longer[: PAST + 12])  # excursions of a seed begin alike


def test_one_who_cannot_get_back_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(there_and_back, "ATTEMPTS", 2)
    monkeypatch.setattr(there_and_back, "NEAR", -1.0)
    with open_game(ROOM) as game, pytest.raises(CollectError, match="from 2 starts in 'my_way_home'"):
        film(game, ROOM, HELD_OUT, "right-left", 12)


def test_files_say_what_they_are_and_filming_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = collect_excursions(1, tmp_path, [ROOM.name], 1)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert files[0].name == "my_way_home-900000-right-left-12.npz"
    for file, (excursion, ticks) in zip(files, EXCURSIONS, strict=True):
        assert is_filmed(file, excursion, ticks) and not is_filmed(file, excursion, ticks + 1)
        with np.load(file) as episode:
            assert episode["frames"].shape == (len(episode["actions"]), 160, 256, 3)
            assert episode["actions"].shape[1] == len(BUTTONS)
            assert (str(episode["place"]), int(episode["seed"])) == (ROOM.name, HELD_OUT)
    kept, torn = files[0].stat().st_mtime_ns, files[1].read_bytes()
    files[1].write_bytes(torn[: len(torn) // 2])
    assert not is_filmed(files[1], *EXCURSIONS[1])
    assert collect_excursions(1, tmp_path, [ROOM.name], 1) == files
    assert files[0].stat().st_mtime_ns == kept
    assert files[1].read_bytes() == torn
