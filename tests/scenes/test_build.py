"""What cutting a scene out of an episode promises."""

from pathlib import Path

import numpy as np
import pytest

from playhead.scenes.build import cut_scene
from playhead.scenes.scene import SceneError, SceneFields, load_scene
from playhead.world.errors import PlayheadError

FIELDS = SceneFields("cellar", "The cellar", "Dark.", "freedoom", 7, "context.npz")


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    frames = draws.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    actions = draws.integers(0, 2, (20, 8), dtype=np.uint8)
    np.savez(tmp_path / "episode.npz", frames=frames, actions=actions, place="house")
    return tmp_path / "episode.npz"


def test_a_scene_opens_on_the_frame_asked_for(episode: Path, tmp_path: Path) -> None:
    folder = cut_scene(episode, 12, 8, FIELDS, tmp_path / "scenes")
    scene = load_scene(folder)
    with np.load(episode) as take:
        assert np.array_equal(scene.context.frames, take["frames"][5:13])
        assert np.array_equal(scene.context.actions, take["actions"][5:13])
    assert (scene.name, scene.title, scene.seed, scene.place) == ("cellar", "The cellar", 7, "house")


def test_a_scene_that_is_there_is_replaced_only_by_force(episode: Path, tmp_path: Path) -> None:
    folder = cut_scene(episode, 12, 8, FIELDS, tmp_path)
    before = (folder / "context.npz").read_bytes()
    with pytest.raises(SceneError, match="--force"):
        cut_scene(episode, 15, 8, FIELDS, tmp_path)
    assert (folder / "context.npz").read_bytes() == before
    cut_scene(episode, 15, 8, FIELDS, tmp_path, force=True)
    assert (folder / "context.npz").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cellar", "episode.npz"]


def test_force_replaces_scenes_only(episode: Path, tmp_path: Path) -> None:
    (tmp_path / "cellar").mkdir()
    (tmp_path / "cellar" / "letter.txt").touch()
    with pytest.raises(SceneError, match="is no scene"):
        cut_scene(episode, 12, 8, FIELDS, tmp_path, force=True)
    assert (tmp_path / "cellar" / "letter.txt").exists()


@pytest.mark.parametrize(
    ("frame", "length", "fields", "sentence"),
    [
        (20, 8, FIELDS, "frames 0 to 19"),
        (6, 8, FIELDS, "take 7 or later"),
        (12, 0, FIELDS, "at least 1 frame"),
        (12, 8, SceneFields("The Cellar", "t", "", "freedoom", 0, "context.npz"), "is no scene name"),
        (12, 8, SceneFields("../cellar", "t", "", "freedoom", 0, "context.npz"), "is no scene name"),
        (12, 8, SceneFields("cellar", " ", "", "freedoom", 0, "context.npz"), "`title` is empty"),
        (12, 8, SceneFields("cellar", "t", "", "freedoom", -1, "context.npz"), "`seed` -1"),
        (12, 8, SceneFields("cellar", "t", "", "", 0, "context.npz"), "`world` is empty"),
    ],
)
def test_a_scene_that_cannot_be_cut_leaves_nothing(
    frame: int, length: int, fields: SceneFields, sentence: str, episode: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlayheadError, match=sentence) as error:
        cut_scene(episode, frame, length, fields, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_or_damaged_episode_is_named(episode: Path, tmp_path: Path) -> None:
    episode.write_bytes(episode.read_bytes()[:500])
    for path in (episode, tmp_path / "other.npz"):
        with pytest.raises(PlayheadError, match=path.name):
            cut_scene(path, 12, 8, FIELDS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(episode: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SceneError, match=r"file/cellar cannot be written"):
        cut_scene(episode, 12, 8, FIELDS, tmp_path / "file")
