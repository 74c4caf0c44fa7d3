"""What was shown to the player is in the file, whatever becomes of the program."""

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import run
from tests.render.desktop import display, lacking
from tests.tools.kills import kill_plays, kill_servers, kill_windows
from tests.tools.recorded import play_with_rewinds


def test_a_killed_play_loses_at_most_its_last_two_ticks(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    """The short form of `python -m tests.tools.long kills`."""
    kill_plays(tiny_world_folder, tiny_scene, tmp_path, times=3, seed=4)


def test_a_killed_server_loses_nothing_that_was_saved_and_at_most_two_ticks_of_a_session(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    """The short form of `python -m tests.tools.long kills-of-servers`."""
    kill_servers(tiny_world_folder, tiny_scene, tmp_path, times=2, seed=4)


@pytest.mark.skipif(bool(lacking()), reason=lacking())
def test_a_killed_window_that_went_on_with_a_recording_loses_at_most_its_last_two_ticks(
    tiny_world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form of `python -m tests.tools.long kills-of-windows`."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    with display() as screen:
        kill_windows(screen, tiny_world_folder, tmp_path, times=3, seed=4)


def test_a_play_with_rewinds_comes_back_in_another_process(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    """The short form of `python -m tests.tools.long recording`: eight rewinds; keys are in tests/render."""
    said = play_with_rewinds(tiny_world_folder, tiny_scene, tmp_path / "rewinds", 8, pause=0.4)
    assert "every frame equal" in said and "branches" in said


def test_a_low_bit_play_is_equal_in_its_precision_and_says_so_in_another(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    file = tmp_path / "low.playhead"
    start = ("--world", tiny_world_folder, "--device", "cpu")
    played = ("--scene", tiny_scene, "--actions", "w*4", "--out", tmp_path / "low.npz", "--record", file)
    done = run("rollout", *played, *start, "--precision", "int8", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("replay", file, "--verify", *start, "--precision", "int8", folder=tmp_path)
    assert (done.returncode, "every frame equal" in done.stdout) == (0, True), done.stderr
    done = run("replay", file, "--verify", *start, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("from tick 1 on: the precision (recorded int8, here full)\n")


def test_a_play_shown_by_another_decoder_is_equal_with_that_one_and_exported_with_it(tmp_path: Path) -> None:
    at = {"folder": tmp_path, "home": tmp_path / "home"}
    assert run("worlds", "random", "causal-forcing", "--tiny", **at).returncode == 0
    file, here = tmp_path / "wan.playhead", ("--device", "cpu", "--decoder", "wan")
    played = ("--scene", "causal-forcing-tiny-start", "--actions", "prompt_2*3", "--record", file)
    done = run("rollout", *played, "--out", tmp_path / "played.npz", *here, **at)
    assert done.returncode == 0, done.stderr
    done = run("replay", file, "--verify", *here, **at)
    assert (done.returncode, "every frame equal" in done.stdout) == (0, True), done.stderr
    done = run("export", file, "--to", tmp_path / "kept.npz", *here, **at)
    assert (done.returncode, done.stderr.count("not what was played")) == (0, 0), done.stderr
    frames = [np.load(tmp_path / name)["frames"] for name in ("played.npz", "kept.npz")]
    assert np.array_equal(*frames) and len(frames[0]) == 9
    done = run("replay", file, "--verify", "--device", "cpu", **at)
    assert done.returncode == 2
    assert "from tick 1 on: the decoder (recorded wan " in done.stderr
    assert done.stderr.endswith(", here lighttae)\n")
