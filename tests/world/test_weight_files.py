"""A world's weights may be several files: every one of them counts wherever weights do."""

from pathlib import Path

import msgspec
import pytest
import tomli_w
import torch

from playhead.engine.fingerprint import differences, fingerprint
from playhead.world.catalogue import scan_worlds
from playhead.world.checkpoint import save_weights
from playhead.world.training.pipeline import make_sharper
from playhead.world.training.run import Run
from playhead.world.training.sharpen import SharpenTraining
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world
from tests.world.game import write_footage

PARTS = {"commit": "the weights of the commit pass", "first": "the weights of the denoise steps before"}


def write(folder: Path, part: str, seed: int, one_pass: bool = False) -> Path:
    """A tiny world that has weights of their own for its commit, or for its first step."""
    world = make_tiny_world(one_pass=one_pass)
    save_world(world, folder)
    file = f"{part}.safetensors"
    changes = {"commit_weights": file} if part == "commit" else {"expert_weights": (file,)}
    config = msgspec.structs.replace(world.config, **changes)
    (folder / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
    save_weights(folder / file, make_tiny_world(seed, one_pass=one_pass).generator.state_dict())
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_other_weights_anywhere_are_another_world(part: str, tmp_path: Path) -> None:
    mine, same, other = (
        fingerprint(World.load(write(tmp_path / str(i), part, seed), "cpu", torch.float32))
        for i, seed in enumerate((1, 1, 2))
    )
    assert not differences(mine, same)
    (said,) = differences(mine, other)
    assert said.startswith(PARTS[part])
    older = {name: digest for name, digest in mine.items() if name in fingerprint(make_tiny_world())}
    assert older != mine and not differences(older, mine)  # a recording of before kept no word of it


@pytest.mark.parametrize("part", PARTS)
def test_a_world_lacks_its_weights_if_it_lacks_one_file_of_them(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    folder = write(tmp_path / "worlds" / "mine", part, 1)

    def entry():
        (found,) = [entry for entry in scan_worlds()[0] if entry.name == "mine"]
        return found

    assert entry().weights == sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    tiny = make_tiny_world()
    generator, autoencoder = (
        sum(p.numel() for p in model.parameters()) for model in (tiny.generator, tiny.autoencoder)
    )
    assert entry().parameters == 2 * generator + autoencoder
    (folder / f"{part}.safetensors").unlink()
    assert entry().weights == 0


def test_a_sharpened_world_has_all_its_generators(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", "first", 1, one_pass=True)
    write_footage(tmp_path / "footage", 2, 12)
    out = make_sharper(
        folder,
        tmp_path / "footage",
        Run(tmp_path / "run", steps=1),
        SharpenTraining(clips=1, length=2),
        "cpu",
    )
    for name in ("first.safetensors", "generator.safetensors"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    World.load(out, "cpu", torch.float32)
