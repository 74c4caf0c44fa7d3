"""What a scene promises: the shipped ones load, and a broken one says in one sentence what to mend."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.scenes.scene import (
    SHIPPED,
    Scene,
    SceneError,
    list_scenes,
    load_scene,
    read_context,
    scene_names,
)
from playhead.world.training.places import PLACES

FIELDS = {
    "name": "cellar",
    "title": "The cellar",
    "description": "",
    "world": "freedoom",
    "seed": 3,
    "context": "context.npz",
}


def write_scene(folder: Path, fields: dict[str, object] = FIELDS, **arrays: np.ndarray) -> Path:
    """A scene of four small frames; fields and arrays may be given otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scene.toml").write_text(tomli_w.dumps(fields), "utf-8")
    whole = {"frames": np.zeros((4, 8, 8, 3), np.uint8), "actions": np.eye(4, 8, dtype=np.uint8)}
    np.savez_compressed(folder / "context.npz", **{**whole, "place": "cellar", **arrays})
    return folder


def refusal(path: Path | str) -> str:
    with pytest.raises(SceneError) as error:
        load_scene(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("scene", list_scenes(), ids=scene_names())
def test_a_shipped_scene_is_eight_frames_that_fit_its_world(scene: Scene) -> None:
    assert scene.context.frames.shape == (8, 160, 256, 3)
    assert scene.context.actions.shape == (8, 8)
    assert scene.world == "freedoom"
    assert scene.title
    assert scene.description.endswith(".")
    assert (SHIPPED / scene.name).is_dir()


def test_every_place_has_two_scenes_or_more_and_all_are_small() -> None:
    places = Counter(scene.place for scene in list_scenes())
    assert set(places) == set(PLACES)
    assert min(places.values()) >= 2
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 8e6


def test_shipped_scenes_differ_in_view_and_seed() -> None:
    scenes = list_scenes()
    assert len({scene.seed for scene in scenes}) == len(scenes)
    assert len({scene.context.frames[-1].tobytes() for scene in scenes}) == len(scenes)


def test_a_scene_is_found_by_name_by_folder_and_by_file(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "cellar")
    for path in (folder, str(folder), folder / "scene.toml"):
        assert load_scene(path).title == "The cellar"
    name = scene_names()[0]
    assert load_scene(name).name == name


def test_an_unknown_scene_is_answered_with_the_known_ones() -> None:
    said = refusal("no-such-scene")
    assert "`no-such-scene`" in said
    assert all(name in said for name in scene_names())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": None}, ["scene.toml", "missing required field `seed`"]),
        ({"sead": 3}, ["scene.toml", "unknown field `sead`"]),
        ({"seed": "three"}, ["scene.toml", "`int`", "$.seed"]),
        ({"title": 3}, ["scene.toml", "`str`", "$.title"]),
        ({"seed": -1}, ["scene.toml", "`seed` -1", "0 to 2^64 - 1"]),
        ({"context": "../context.npz"}, ["scene.toml", "`context`", "beside"]),
        ({"context": "other.npz"}, ["other.npz is missing"]),
        ({"world": ""}, ["scene.toml", "`world` is empty"]),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: list[str], tmp_path: Path) -> None:
    fields = {key: value for key, value in {**FIELDS, **change}.items() if value is not None}
    said = refusal(write_scene(tmp_path / "cellar", fields))
    assert all(word in said for word in words), said


@pytest.mark.parametrize("seed", [2**64, 2**70])
def test_a_seed_beyond_64_bits_is_refused(seed: int, tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "cellar")
    text = (folder / "scene.toml").read_text("utf-8").replace("seed = 3", f"seed = {seed}")
    (folder / "scene.toml").write_text(text, "utf-8")
    assert f"`seed` {seed}" in refusal(folder)


def test_text_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "cellar")
    for wrong in (b"name = ", b"\xff\xfe"):
        (folder / "scene.toml").write_bytes(wrong)
        assert "scene.toml is not a usable scene" in refusal(folder)
    (folder / "scene.toml").unlink()
    assert "scene.toml is missing" in refusal(folder)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"frames": np.zeros((4, 8, 8), np.uint8)}, ["`frames` is uint8 (4, 8, 8)", "uint8 (T, H, W, 3)"]),
        ({"frames": np.zeros((4, 8, 8, 3))}, ["`frames` is float64", "uint8 (T, H, W, 3)"]),
        ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, ["`frames` is uint8 (0, 8, 8, 3)"]),
        ({"actions": np.zeros((3, 8), np.uint8)}, ["`actions` is uint8 (3, 8)", "(4, buttons)"]),
        ({"actions": np.full((4, 8), 7)}, ["`actions` has the value 7"]),
    ],
)
def test_a_context_of_the_wrong_shape_is_told_the_right_one(
    arrays: dict[str, np.ndarray], words: list[str], tmp_path: Path
) -> None:
    said = refusal(write_scene(tmp_path / "cellar", **arrays))
    assert all(word in said for word in ["context.npz", *words]), said


def test_a_context_lacking_an_array_is_told_which(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "cellar")
    np.savez(folder / "context.npz", frames=np.zeros((4, 8, 8, 3), np.uint8))
    assert "no array `actions`" in refusal(folder)


def test_a_context_file_without_actions_holds_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "context.npz", frames=np.zeros((4, 8, 8, 3), np.uint8))
    context = read_context(tmp_path / "context.npz", buttons=5)
    assert context.actions.shape == (4, 5)
    assert not context.actions.any()


@given(cut=st.integers(0, 900), at=st.integers(0, 900), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_no_damage_to_a_context_gets_past_or_crashes(
    cut: int, at: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_scene(tmp_path_factory.getbasetemp() / "cellar")
    file = folder / "context.npz"
    data = bytearray(file.read_bytes())
    data[at % len(data)] = value
    file.write_bytes(data[: len(data) - cut % len(data)])
    try:
        context = load_scene(folder).context
    except SceneError as error:
        assert "context.npz" in str(error)
        assert "\n" not in str(error)
    else:
        assert context.frames.shape[1:] == (8, 8, 3)
