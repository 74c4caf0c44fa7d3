"""Settings in TOML are read as editors save them: with a byte-order mark or without."""

import shutil
from pathlib import Path

import pytest

from playhead.controls.keymap import DEFAULT, load_keymap
from playhead.render.window.local_opener import family_of
from playhead.scenes.scene import load_scene
from playhead.world.config import load_config
from playhead.world.errors import PlayheadError

MARK = b"\xef\xbb\xbf"


def test_a_byte_order_mark_changes_nothing(tiny_world_folder: Path, tiny_scene: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_bytes(MARK + DEFAULT.read_bytes())
    assert load_keymap(tmp_path / "keys.toml").buttons == load_keymap(DEFAULT).buttons
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    (scene / "scene.toml").write_bytes(MARK + (scene / "scene.toml").read_bytes())
    assert load_scene(scene).title == load_scene(tiny_scene).title
    toml = (tiny_world_folder / "world.toml").read_bytes()
    (tmp_path / "world.toml").write_bytes(MARK + b'family = "kin"\n' + toml)
    assert load_config(tmp_path / "world.toml").name == "tiny"
    assert family_of(str(tmp_path)) == "kin"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named_with_the_mend(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('é = ["w"]', encoding)
    with pytest.raises(PlayheadError, match=r"keys\.toml is not a usable key map: it is not UTF-8; save it"):
        load_keymap(tmp_path / "keys.toml")
