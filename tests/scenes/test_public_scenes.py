"""Scenes of public worlds: what they are made of, and what is refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest

from playhead import main as command_line
from playhead.render.export.sheet import write_png
from playhead.scenes.encoders import Encoders, make_context
from playhead.scenes.picture import read_picture
from playhead.scenes.scene import SceneError, load_scene, scenes_of
from playhead.world.public import PUBLIC
from playhead.world.randomise import random_world, save_world_config
from playhead.world.world import World


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))


def make_world(name: str) -> World:
    config = random_world(name, small=True)
    save_world_config(config)
    return World.load(config.name, "cpu")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_png(tmp_path / "p.png", np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8))
    return tmp_path / "p.png"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["main.py", *words])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    return int(end.value.code or 0)


def test_a_picture_is_scaled_to_cover_and_cut_about_its_middle(picture: Path, tmp_path: Path) -> None:
    assert read_picture(picture, 64, 96).shape == (64, 96, 3)
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(SceneError, match="no picture"):
        read_picture(tmp_path / "no.png", 64, 96)


def test_a_picture_becomes_features_condition_and_a_scene_that_plays(
    picture: Path, tmp_path: Path, encoders_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("matrix-game-2")
    out = str(tmp_path / "home" / "scenes")
    line = ["scenes", "new", "--world", world.config.name, "--name", "hall", "--title", "A hall"]
    line += ["--encoders", str(encoders_folder)]
    assert run(monkeypatch, *line, "--image", str(picture), "--out", out) == 0
    scene = load_scene("hall")
    assert scene.context.condition is not None
    assert scene.context.condition.shape == (30, *world.config.latent_shape)
    assert [s.name for s in scenes_of(world.config)] == ["hall"]
    from playhead.engine.session import Session
    from playhead.world.action import Action

    session = Session(world, scene.context, 0)
    assert np.array_equal(session.frames[0], scene.context.frames[0])  # the picture, until the first tick
    assert session.step(Action()).shape == (9, 64, 96, 3)


def test_a_frame_wise_text_world_starts_from_a_picture(picture: Path, encoders_folder: Path) -> None:
    context = make_context(make_world("sgf"), ("a", "b"), picture, Encoders(str(encoders_folder)))
    assert len(context.prompts) == 2
    assert context.latents is not None and len(context.latents) == 1


def test_what_does_not_fit_is_refused(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SceneError, match="--prompt"):
        make_context(make_world("self-forcing"), (), picture, Encoders())
    with pytest.raises(SceneError, match="no --prompt"):
        make_context(make_world("matrix-game-2"), ("a",), picture, Encoders())
    with pytest.raises(SceneError, match="--image"):
        make_context(make_world("matrix-game-2"), (), None, Encoders())
    with pytest.raises(SceneError, match="frame-wise"):
        make_context(make_world("self-forcing"), ("a",), picture, Encoders())
    assert run(monkeypatch, "scenes", "new", "--name", "x", "--title", "X") == 2


def test_without_the_encoders_a_sentence_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(SceneError, match=r"pip install -e .\.\[scenes\]"):
        make_context(make_world("self-forcing"), ("a",), None, Encoders())


def test_the_commands_of_worlds_say_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (("worlds", "random", "doom"), ", ".join(PUBLIC)),
        (("worlds", "get", "doom"), "catalogue"),
        (("worlds", "add", "hub:x", "--autoencoder", "y"), "hub:OWNER/REPO/FILE"),
        (("worlds", "add", "nowhere.pt", "--autoencoder", "y.pth"), "nowhere.pt is missing"),
    ):
        assert run(monkeypatch, *words) == 2
        err = capsys.readouterr().err
        assert said in err and "Traceback" not in err
