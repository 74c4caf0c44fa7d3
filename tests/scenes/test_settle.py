"""What a scene made of somebody's own picture promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from playhead.engine.session import Session
from playhead.render.export.sheet import write_png
from playhead.scenes.commands import app
from playhead.scenes.scene import SceneError, load_scene, scene_names
from playhead.scenes.settle import settle_picture
from playhead.world.action import Action
from playhead.world.metrics import psnr
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_png(tmp_path / "p.png", np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
    return tmp_path / "p.png"


def test_it_begins_with_the_picture_as_the_world_encodes_it(any_world: World, picture: Path) -> None:
    context = settle_picture(any_world, picture, 5, 0, 0)
    assert context.frames.shape == (5, 64, 64, 3) and not context.actions.any()
    assert context.latents is not None
    assert np.allclose(context.latents, any_world.encode(context.frames).numpy(), atol=1e-5)


def test_it_goes_on_as_the_world_dreams_it_with_nothing_held(any_world: World, picture: Path) -> None:
    start, context = (settle_picture(any_world, picture, 5, ticks, 7) for ticks in (0, 3))
    assert context.latents is not None and start.latents is not None
    assert np.array_equal(context.frames[:2], start.frames[:2])
    assert np.array_equal(context.latents[:2], start.latents[:2])
    assert all((context.frames[i] != start.frames[0]).any() for i in (2, 3, 4))
    again = settle_picture(any_world, picture, 5, 3, 7)
    assert again.latents is not None and np.array_equal(again.latents, context.latents)
    session = Session(any_world, context, 7)
    frames = session.step(Action())
    assert (frames[0] != context.frames[-1]).any()


def test_the_shipped_world_settles_on_what_the_picture_shows(tmp_path: Path) -> None:
    picture = load_scene(scene_names()[0]).context.frames[-1]
    wide = np.pad(picture, ((0, 0), (40, 40), (0, 0)))  # what sticks out is cut off
    write_png(tmp_path / "seen.png", wide)
    options = ["new", "--image", str(tmp_path / "seen.png"), "--name", "mine", "--title", "Mine"]
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    scene = load_scene(tmp_path / "mine")
    assert len(scene.context.frames) == 8
    assert psnr(*(torch.from_numpy(np.array(f)) for f in (scene.context.frames[-1], picture))) > 20


def test_a_world_that_is_given_its_last_latents_begins_with_a_picture_too(
    any_world: World, picture: Path, tmp_path: Path
) -> None:
    """Without encoders of prompts and pictures, which are for public worlds."""
    folder = save_world(any_world, tmp_path / "world")
    options = ["new", "--world", str(folder), "--image", str(picture), "--name", "mine", "--title", "Mine"]
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert len(load_scene(tmp_path / "mine").context.frames) == 8


@pytest.mark.parametrize(
    ("length", "ticks", "words"), [(0, 4, "--length 0"), (8, -1, "--settle"), (2000, 0, "--length 2000")]
)
def test_what_cannot_be_settled_is_said(
    tiny_world: World, picture: Path, length: int, ticks: int, words: str
) -> None:
    with pytest.raises(SceneError, match=words):
        settle_picture(tiny_world, picture, length, ticks, 0)


def test_no_picture_no_scene(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no picture")
    options = ["new", "--image", str(tmp_path / "no.png"), "--name", "mine", "--title", "Mine"]
    with pytest.raises(SceneError, match=r"no\.png is no picture"):
        CliRunner().invoke(app, [*options, "--out", str(tmp_path)], catch_exceptions=False)
    assert not (tmp_path / "mine").exists()


def test_a_picture_may_be_dreamed_as_one_of_the_worlds_places(tmp_path: Path, picture: Path) -> None:
    options = ["new", "--image", str(picture), "--name", "mine", "--place", "my_way_home", "--settle", "1"]
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert load_scene(tmp_path / "mine").place == "my_way_home"


def test_a_place_changes_what_a_picture_settles_to(picture: Path) -> None:
    world = make_tiny_world(places=("hall", "yard"))
    hall, yard = (settle_picture(world, picture, 5, 3, 7, place) for place in ("hall", "yard"))
    assert (hall.place, yard.place) == ("hall", "yard")
    assert np.array_equal(hall.frames[0], yard.frames[0])
    assert not np.array_equal(hall.frames[-1], yard.frames[-1])


def test_a_place_that_the_world_does_not_know_is_said_with_those_it_knows(picture: Path) -> None:
    world = make_tiny_world(places=("hall", "yard"))
    with pytest.raises(SceneError, match="knows no place `cellar`; it knows hall, yard"):
        settle_picture(world, picture, 5, 0, 0, "cellar")


@pytest.mark.parametrize("source", [["--from", "e.npz", "--frame", "3"], ["--prompt", "A coast"]])
def test_a_place_is_for_pictures_alone(tmp_path: Path, source: list[str]) -> None:
    options = ["new", *source, "--name", "mine", "--place", "my_way_home", "--out", str(tmp_path)]
    with pytest.raises(SceneError, match="--place says what a picture is dreamed as"):
        CliRunner().invoke(app, options, catch_exceptions=False)
