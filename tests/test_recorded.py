"""What was shown to the player is in the file, whatever becomes of the program."""

from pathlib import Path

from tests.kills import kill_plays
from tests.recorded import play_with_rewinds


def test_a_killed_play_loses_at_most_its_last_two_ticks(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    """The short form of `python -m tests.long kills`."""
    kill_plays(tiny_world_folder, tiny_scene, tmp_path, times=3, seed=4)


def test_a_play_with_rewinds_comes_back_in_another_process(
    tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path
) -> None:
    """The short form of `python -m tests.long recording`: eight rewinds; keys are in tests/render."""
    said = play_with_rewinds(tiny_world_folder, tiny_scene, tmp_path / "rewinds", 8, pause=0.4)
    assert "every frame equal" in said and "branches" in said
