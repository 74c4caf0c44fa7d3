"""Ready scenes: they ship, wait for the weights, are prepared once, and are played without any encoder."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playhead import main as command_line
from playhead.engine.session import Session
from playhead.scenes import worlds_commands
from playhead.scenes.encoders import Encoders
from playhead.scenes.picture import read_picture
from playhead.scenes.prepare import prepare_scenes
from playhead.scenes.scene import READY, SceneError, load_scene, ready_scenes, scenes_of
from playhead.world.action import Action, prompt_name
from playhead.world.encoding import load_frame_encoder
from playhead.world.public import PUBLIC
from playhead.world.randomise import random_world, save_world_config
from playhead.world.world import World

WORLDS = ("self-forcing", "causal-forcing", "matrix-game-2", "matrix-game-2-gta", "matrix-game-2-templerun")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def add_tiny(name: str) -> str:
    """A small random world under the catalogue's own name, as if its weights had been added."""
    save_world_config(msgspec.structs.replace(random_world(name, small=True), name=name))
    return name


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["main.py", *words])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_world_has_three_ready_scenes_or_more(name: str) -> None:
    """Matrix-Game 2's variants each their own; what is told by a prompt, and ForgeWM, those of the family."""
    config = PUBLIC[name].config
    scenes = [fields for fields in ready_scenes(config) if fields.world in (name, config.family)]
    variant = name.startswith("matrix-game-2")
    assert len([fields for fields in scenes if not variant or fields.world == name]) >= 3
    for fields in scenes:
        assert fields.description.endswith(".") and fields.title
        if config.generator.text_dim:
            assert 3 <= len(fields.prompts) <= 9 and not fields.image
        else:
            size = config.frame_height, config.frame_width
            picture = read_picture(READY / fields.name / fields.image, *size)
            assert picture.std() > 20
            assert not fields.prompts


@pytest.mark.parametrize("name", WORLDS)
def test_the_command_prepares_a_worlds_scenes_which_then_play_without_encoders(
    name: str, encoders_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = World.load(add_tiny(name), "cpu").config
    with pytest.raises(SceneError, match=f"scenes prepare --world {name}"):
        scenes_of(config)
    chosen = ready_scenes(config)[-1].name
    assert (
        run(monkeypatch, "scenes", "prepare", chosen, "--world", name, "--encoders", str(encoders_folder))
        == 0
    )
    assert f"{chosen}: prepared" in capsys.readouterr().out

    for package in ("transformers", "diffusers"):
        monkeypatch.setitem(sys.modules, package, None)
    assert [scene.name for scene in scenes_of(config)] == [chosen]
    scene = load_scene(chosen)
    world = World.load(name, "cpu")
    world.side_by_side = False
    session = Session(world, scene.context, scene.seed)
    first = session.step(Action())
    second = session.step(Action(frozenset({prompt_name(1)} if scene.prompts else ())))
    assert second.shape == (world.config.frames_per_tick, 64, 96, 3)
    assert len(first) == len(second) - 3
    assert run(monkeypatch, "scenes", "prepare", chosen, "--world", name) == 0  # needs no encoder any more
    assert f"{chosen}: was prepared already" in capsys.readouterr().out


def test_different_prompts_and_pictures_become_different_contexts(encoders_folder: Path) -> None:
    folder = str(encoders_folder)
    encoders = Encoders(folder, folder)
    text = load_frame_encoder(add_tiny("longlive"))
    generator = msgspec.structs.replace(text.config.generator, text_length=512)
    text.config = msgspec.structs.replace(text.config, generator=generator)
    prepare_scenes(text, encoders, ["rocky-coast", "night-drive"])
    coast, drive = (load_scene(name).context for name in ("rocky-coast", "night-drive"))
    rows = [*coast.prompts, *drive.prompts]
    assert len(rows) == 7
    assert len({row.tobytes() for row in rows}) == 7
    image = load_frame_encoder(add_tiny("matrix-game-2"))
    made = prepare_scenes(image, encoders)
    assert set(made) == {"courtyard", "forest-walk", "pillar-temple", "steel-corridor"}
    contexts = [load_scene(name).context for name in made]
    for part in ("frames", "features", "condition"):
        assert len({getattr(context, part).tobytes() for context in contexts}) == len(contexts)


def test_what_is_prepared_for_another_size_is_not_offered_and_not_replaced_unasked(
    encoders_folder: Path, own_home: Path
) -> None:
    folder = str(encoders_folder)
    small = load_frame_encoder(add_tiny("self-forcing"))
    prepare_scenes(small, Encoders(folder, folder), ["old-town-walk"])
    before = (own_home / "scenes" / "old-town-walk" / "context.npz").read_bytes()
    real = PUBLIC["longlive"].config
    with pytest.raises(SceneError, match="prepared once"):
        scenes_of(real)
    small.config = real
    with pytest.raises(SceneError, match="--force"):
        prepare_scenes(small, Encoders(folder, folder), ["old-town-walk"])
    assert (own_home / "scenes" / "old-town-walk" / "context.npz").read_bytes() == before


def test_a_ready_scene_says_how_to_prepare_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SceneError, match="scenes prepare rocky-coast --world"):
        load_scene("rocky-coast")
    add_tiny("self-forcing")
    for words, said in (
        (["scenes", "prepare", "nowhere", "--world", "self-forcing"], "no ready scene `nowhere`"),
        (["scenes", "prepare", "--world", "freedoom"], "no ready scene of the world `freedoom`"),
    ):
        assert run(monkeypatch, *words) == 2
        assert said in capsys.readouterr().err
    assert run(monkeypatch, "scenes") == 0
    assert "to be prepared" in capsys.readouterr().out


def test_getting_a_world_stands_when_its_scenes_cannot_be_prepared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_tiny("self-forcing")
    monkeypatch.setitem(sys.modules, "transformers", None)
    worlds_commands._prepare("self-forcing")
    out, err = capsys.readouterr()
    assert "scenes to play" not in out
    assert "pip install -e '.[scenes]'" in err and "scenes prepare --world self-forcing" in err


def test_a_full_wan_vae_may_encode_the_pictures(encoders_folder: Path) -> None:
    folder = str(encoders_folder)
    world = load_frame_encoder(add_tiny("matrix-game-2"))
    prepare_scenes(world, Encoders(folder, folder, folder), ["courtyard"])
    context = load_scene("courtyard").context
    assert context.condition is not None and context.features is not None
    assert context.condition.shape == (30, *world.config.latent_shape)
    assert np.isfinite(context.condition).all() and context.features.std() > 0
