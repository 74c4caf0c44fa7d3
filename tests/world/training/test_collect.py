"""What the collector promises of its footage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from playhead.world.training.collect import collect, episode_path, is_whole
from playhead.world.training.doom import CollectError, film, open_game
from playhead.world.training.places import BUTTONS, DOOM_BUTTONS, PLACES
from playhead.world.training.random_player import BEHAVIOURS, Behaviour, RandomPlayer, Surroundings, any_chord

ROOT = Path(__file__).parents[3]


def test_same_seed_is_the_same_footage_whatever_the_game_played_before() -> None:
    place = PLACES["freedoom1_e1m1"]
    with open_game(place) as game:
        frames, actions = film(game, place, 7, 40)
        others, _ = film(game, place, 8, 40)
    with open_game(place) as game:
        film(game, place, 9, 20)
        again, actions_again = film(game, place, 7, 40)
    assert np.array_equal(frames, again)
    assert np.array_equal(actions, actions_again)
    assert not np.array_equal(frames, others)


@pytest.mark.parametrize("name", PLACES)
def test_every_place_moves_under_the_player(name: str) -> None:
    with open_game(PLACES[name]) as game:
        frames, _ = film(game, PLACES[name], 1, 60)
    assert frames.shape == (60, 160, 256, 3)
    assert frames.dtype == np.uint8
    changed = (frames[1:] != frames[:-1]).any(axis=(1, 2, 3))
    assert changed.mean() > 0.5
    assert frames.std() > 5


def test_every_button_is_pressed_within_a_few_hundred_ticks() -> None:
    player = RandomPlayer(np.random.default_rng(0))
    pressed = np.stack([player.press(Surroundings()) for _ in range(600)])
    assert pressed.shape == (600, len(BUTTONS))
    assert pressed.any(axis=0).all()
    assert not pressed.all(axis=0).any()


def test_every_set_of_buttons_is_pressed_sooner_or_later() -> None:
    behaviour = next(behaviour for behaviour in BEHAVIOURS if behaviour.mode is any_chord)
    player = RandomPlayer(
        np.random.default_rng(0), [Behaviour(any_chord, 1.0, behaviour.low, behaviour.high)]
    )
    pressed = np.stack([player.press(Surroundings()) for _ in range(30_000)])
    assert len(np.unique(pressed, axis=0)) == 2 ** len(BUTTONS)


def test_each_button_has_its_name_in_doom() -> None:
    import vizdoom

    assert len(BUTTONS) == len(DOOM_BUTTONS) == 8
    assert all(hasattr(vizdoom.Button, name) for name in DOOM_BUTTONS)


def test_files_have_the_documented_format_and_rotate_over_the_places(tmp_path: Path) -> None:
    places = ["my_way_home", "defend_the_center"]
    files = collect(3, 12, 40, tmp_path, places=places, workers=1)
    assert [file.name for file in files] == [
        "my_way_home-000040.npz",
        "defend_the_center-000041.npz",
        "my_way_home-000042.npz",
    ]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    with np.load(files[1]) as episode:
        assert episode["frames"].shape == (12, 160, 256, 3)
        assert episode["actions"].shape == (12, 8)
        assert episode["frames"].dtype == episode["actions"].dtype == np.uint8
        assert set(np.unique(episode["actions"])) <= {0, 1}
        assert str(episode["place"]) == "defend_the_center"
        assert int(episode["seed"]) == 41

    # Going on: whole files stay untouched, a torn or missing one is filmed again, alike.
    kept, torn = files[0].stat().st_mtime_ns, files[1].read_bytes()
    files[1].write_bytes(torn[: len(torn) // 2])
    files[2].unlink()
    assert collect(3, 12, 40, tmp_path, places=places, workers=1) == files
    assert files[0].stat().st_mtime_ns == kept
    assert all(is_whole(file, 12) for file in files)
    assert files[1].read_bytes() == torn


def test_footage_of_a_steady_player_stands_for_seconds_and_is_not_taken_for_another(tmp_path: Path) -> None:
    (file,) = collect(1, 150, 3, tmp_path, places=["my_way_home"], workers=1, steady=0.9)
    with np.load(file) as episode:
        actions = episode["actions"]
    changes = np.flatnonzero((actions[1:] != actions[:-1]).any(1))
    assert np.diff([0, *changes, len(actions)]).max() >= 48
    assert is_whole(file, 150, 0.9) and not is_whole(file, 150)
    collect(1, 150, 3, tmp_path, places=["my_way_home"], workers=1)
    assert is_whole(file, 150) and not is_whole(file, 150, 0.9)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_whole_files_and_one_sentence(tmp_path: Path) -> None:
    program = (
        "from playhead.world.training.collect import collect\n"
        "if __name__ == '__main__': collect(500, 30, 0, OUT, ['my_way_home'], 1)\n"
    ).replace("OUT", repr(str(tmp_path / "out")))
    script = tmp_path / "program.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = episode_path(tmp_path / "out", "my_way_home", 0)
    deadline = time.monotonic() + 30
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "all whole" in said.replace("\n", " ")
    assert "Traceback" not in said
    left = list((tmp_path / "out").iterdir())
    assert left
    assert all(is_whole(file, 30) for file in left)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"places": ["e1m1"]}, "there is no place 'e1m1': choose among my_way_home, deathmatch"),
        ({"length": 1}, "length is 1: ask for 2 or more."),
        ({"steady": 1.0}, "steady is 1.0: it is a share of the time, from 0 to below 1."),
        ({"episodes": 0}, "episodes is 0: ask for 1 or more."),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(
    wrong: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    asked: dict[str, object] = {"episodes": 1, "length": 2, "seed": 0, "out": tmp_path / "new"}
    with pytest.raises(CollectError) as refusal:
        collect(**{**asked, **wrong})  # type: ignore[arg-type]
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CollectError, match="file/out' cannot be written"):
        collect(1, 2, 0, tmp_path / "file" / "out")


def test_without_vizdoom_the_way_to_install_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(CollectError, match=r"pip install -e '\.\[train\]' in "):
        collect(1, 2, 0, tmp_path)
