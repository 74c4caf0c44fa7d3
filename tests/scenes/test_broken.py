"""What cannot be used among many is left out and named; it is refused only where it was asked for."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from playhead import main as command_line
from playhead.engine.agents import WorldEnv
from playhead.engine.bridge.server.registry import Registry
from playhead.scenes.scene import SceneError, load_scene, scan_scenes, scene_names, scenes_of
from playhead.world import attention_check, remembered
from playhead.world.catalogue import scan_worlds
from playhead.world.errors import WorldError, warn_once
from playhead.world.world import World
from playhead.world.world_folders import find_world
from tests.conftest import save_scene


def add(line: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(line + file.read_text("utf-8"), "utf-8")


def into_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


TOML: dict[str, Callable[[Path], object]] = {
    "no TOML": add("= ["),
    "a newer field": add("colour = 3\n"),
    "nested": add("a = " + "[" * 5000 + "\n"),
    "binary": lambda file: file.write_bytes(bytes(range(256))),
    "a folder": into_folder,
    "empty": lambda file: file.write_bytes(b""),
}
SCENES = {**{kind: ("scene.toml", spoil) for kind, spoil in TOML.items()}, "cut": ("context.npz", cut)}


@pytest.fixture
def mine(tiny_world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a whole scene and a whole world, and one of each that tests break."""
    home = tmp_path / "home"
    monkeypatch.setenv("PLAYHEAD_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.delenv("PLAYHEAD_RECORDINGS", raising=False)
    (home / "scenes").mkdir(parents=True)
    for name in ("a-broken", "whole"):
        save_scene(home / "scenes" / name)
        shutil.copytree(tiny_world_folder, home / "worlds" / name)
    warn_once.cache_clear()
    return home


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def main(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["main.py", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        out, err = capfd.readouterr()
        assert not end.value.code, err
        assert "Traceback" not in err
        return out

    return main


@pytest.mark.parametrize("kind", SCENES)
def test_a_broken_scene_is_left_out_and_named(
    kind: str,
    mine: Path,
    tiny_world: World,
    tiny_world_folder: Path,
    run: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, spoil = SCENES[kind]
    spoil(mine / "scenes" / "a-broken" / file)
    with caplog.at_level(logging.WARNING, "playhead"):
        assert len(scenes_of(tiny_world.config)) == 1
        scenes_of(tiny_world.config)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("a scene is left out: ") and "a-broken" in said
    env = WorldEnv(tiny_world)
    env.reset(seed=1)
    env.close()
    assert len(Registry.load([str(tiny_world_folder)], [], "cpu").list()[0].scenes) == 1
    found, broken = scan_scenes()
    assert {scene.name for scene in found} >= set(scene_names()) and set(broken) == {"a-broken"}
    shown = run("scenes")
    assert "a-broken" in shown and "cannot be used: " in shown and "A tiny scene" in shown
    with pytest.raises(SceneError, match="a-broken"):
        load_scene("a-broken")


@pytest.mark.parametrize("kind", TOML)
def test_a_broken_world_is_left_out_and_named(
    kind: str, mine: Path, run: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    add('family = "kin"\n')(mine / "worlds" / "whole" / "world.toml")
    TOML[kind](mine / "worlds" / "a-broken" / "world.toml")
    found, broken = scan_worlds()
    assert [entry.name for entry in found] == ["freedoom", "whole"] and set(broken) == {"a-broken"}
    assert "cannot be used: " in run("worlds")
    assert "a world.toml that can be used: " in run("doctor").replace("\n", " ")
    assert find_world("kin").name == "whole"
    assert caplog.messages[0].startswith("a world is left out: ") and "a-broken" in caplog.messages[0]
    with pytest.raises(WorldError, match="a-broken"):
        World.load("a-broken", "cpu")


def test_a_world_of_impossible_sizes_is_named_too(mine: Path) -> None:
    file = mine / "worlds" / "a-broken" / "world.toml"
    file.write_text(file.read_text("utf-8").replace("ffn_dim = 64", "ffn_dim = -64"), "utf-8")
    assert set(scan_worlds()[1]) == {"a-broken"}


@pytest.mark.parametrize("kind", ["text", "folder", "empty"])
def test_a_broken_recording_is_a_row(kind: str, mine: Path, run: Callable[..., str]) -> None:
    file = mine / "recordings" / "a-broken.playhead"
    file.parent.mkdir()
    file.mkdir() if kind == "folder" else file.write_text("no recording" * (kind == "text"))
    assert "damaged: see `recordings info`" in run("recordings")


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"a": 3}', b"\xff\xfe", b"[" * 100_000])
def test_broken_notes_on_attention_are_none(note: bytes, tmp_path: Path) -> None:
    (tmp_path / "attention.json").write_bytes(note)
    assert attention_check._known(tmp_path / "attention.json") == {}
    whole = {"key": attention_check.BackendChoice("math")}
    remembered.write(tmp_path / "attention.json", whole)
    assert attention_check._known(tmp_path / "attention.json") == whole
    assert msgspec.json.decode((tmp_path / "attention.json").read_bytes())
