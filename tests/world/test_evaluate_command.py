"""The command that evaluates: scores for every place, pictures, and a sentence for bad footage."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from playhead.main import main
from playhead.render.evaluate.commands import comparison
from playhead.world.clips import cut_clips
from playhead.world.evaluation import HORIZONS, as_numbers, prepare
from playhead.world.world import World
from playhead.world.world_folders import SHIPPED
from tests.conftest import BUTTONS, save_world
from tests.world.game import film, write_footage
from tests.world.measuring import LENGTH, run

ROOT = Path(__file__).parents[2]


def test_there_are_scores_for_every_place_and_for_all(tiny_world: World, tmp_path: Path) -> None:
    for place in ("cellar", "attic"):
        write_footage(tmp_path, 1, LENGTH, seed=900_000, place=place)
    measured = prepare(tiny_world, None, tmp_path, cut_clips(tmp_path, 2))
    run(measured, 64)
    found = measured.result()
    assert list(found) == ["attic", "cellar", "all"]
    assert [scores.clips for scores in found.values()] == [2, 2, 4]
    numbers = as_numbers(found["all"])
    assert numbers["dreamed"].keys() == {str(h) for h in HORIZONS}
    assert numbers["following_real"] is None  # there is no model to judge by
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


@pytest.mark.parametrize(
    ("height", "width", "buttons", "words"),
    [(32, 64, 8, "32 x 64"), (64, 48, 8, "64 x 48"), (64, 64, 5, "5 buttons")],
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside one that fits"])
def test_episodes_of_another_world_end_in_one_sentence(
    height: int,
    width: int,
    buttons: int,
    words: str,
    alone: bool,
    tiny_world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    frames, actions = film(LENGTH, 0)
    np.savez(
        tmp_path / "other.npz", frames=frames[:, :height, :width], actions=actions[:, :buttons], place="b"
    )
    if not alone:
        write_footage(tmp_path, 1, LENGTH, place="a")
    arguments = [
        "evaluate",
        "--world",
        str(tiny_world_folder),
        "--episodes",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    said = refuse(arguments, monkeypatch, capfd)
    assert words in said
    assert str(tmp_path) in said


def refuse(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    """The one sentence in which a command ends that cannot be done."""
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("playhead: ")
    assert len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--episodes": "nowhere"}, "nowhere holds no .npz episodes"),
        ({"--episodes": "short"}, f"no episode in short is {LENGTH} frames long"),
        ({"--world": "atlantis"}, "no world `atlantis`"),
        ({"--steps": "0"}, "not 0; try --steps 2"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    change: dict[str, str],
    words: str,
    tiny_world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_footage(tmp_path / "short", 1, LENGTH - 1)
    given_ = {"--world": str(tiny_world_folder), "--episodes": "short", "--device": "cpu", **change}
    said = refuse(["evaluate", *(x for pair in given_.items() for x in pair)], monkeypatch, capfd)
    assert words in said


@pytest.mark.skipif(
    not (SHIPPED / "freedoom" / "generator.safetensors").is_file(), reason="freedoom's weights are not here"
)
def test_the_shipped_world_is_measured_on_held_out_footage_from_the_command_line(tmp_path: Path) -> None:
    """On frames filmed on the spot: every field is there, and the numbers can be those of a trained world."""
    pytest.importorskip("vizdoom", reason="needs vizdoom (the extra `train`)")
    from playhead.world.training.collect import episode_path, write_episode
    from playhead.world.training.doom import film as film_game
    from playhead.world.training.doom import open_game
    from playhead.world.training.places import PLACES

    name = "my_way_home"
    with open_game(PLACES[name]) as game:
        frames, actions = film_game(game, PLACES[name], 900_000, LENGTH)
    write_episode(episode_path(tmp_path, name, 900_000), frames, actions, name, 900_000)
    command = [sys.executable, "main.py", "evaluate", "--episodes", str(tmp_path), "--json"]
    command += ["--ticks", "64", "--clips", "1", "--device", "cpu"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert list(found) == [name, "all"]
    for scores in found.values():
        assert scores["clips"] == 1
        assert scores["dreamed"].keys() == scores["copied"].keys() == {str(h) for h in HORIZONS}
        for field in ("sharpness", "colour", "contrast"):
            assert scores[field].keys() == {"16", "64"}
        assert scores["following"].keys() == {"64"}
        assert 0 <= scores["following_real"] <= 1
        assert scores["following_buttons"].keys() == set(BUTTONS)
        assert 20 < scores["ceiling"] < 60
        assert all(5 < value < 60 for value in [*scores["dreamed"].values(), *scores["copied"].values()])
    overall = found["all"]
    assert overall["dreamed"]["1"] < overall["ceiling"] + 1
    assert overall["dreamed"]["1"] > overall["dreamed"]["64"]


def test_runs_are_compared_in_one_table_with_pictures(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    episodes = write_footage(tmp_path / "heldout", 2, LENGTH)
    for name, seconds in (("one", 90), ("two", 600)):
        save_world(tiny_world, tmp_path / name / "world")
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 5, "seconds": seconds}) + "\n")
    arguments = ["evaluate", "--episodes", str(episodes), "--clips", "1", "--ticks", "64", "--device", "cpu"]
    arguments += ["--compare", str(tmp_path / "one"), "--compare", str(tmp_path / "two")]
    arguments += ["--out", str(tmp_path / "out"), "--json"]
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(r["run"], r["steps"]) for r in rows] == [(n, s) for n in ("one", "two") for s in (1, 2, 4)]
    assert [r["minutes"] for r in rows] == [1.5] * 3 + [10.0] * 3
    assert rows[0]["dreamed"]["8"] != rows[1]["dreamed"]["8"]  # steps count
    assert rows[0]["dreamed"] == rows[3]["dreamed"]  # the same weights
    for file in ("sheet.png", "timelapse.mp4"):
        assert (tmp_path / "out" / "two-4" / file).stat().st_size > 500
    table = comparison(rows)
    assert table.row_count == 8


def test_pictures_need_no_pyav_and_that_the_film_is_lacking_is_said(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    episodes = write_footage(tmp_path / "heldout", 1, LENGTH)
    world, out = save_world(tiny_world, tmp_path / "world"), tmp_path / "out"
    words = ["evaluate", "--world", world, "--episodes", episodes, "--clips", "1", "--ticks", "64", "--json"]
    monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words), "--device", "cpu", "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr().err
    assert end.value.code == 0, said
    assert said.count("there will be no time-lapse: PyAV is missing") == 1
    assert (out / "sheet.png").is_file() and not list(out.glob("*.mp4"))
