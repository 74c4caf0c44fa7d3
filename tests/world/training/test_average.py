"""Averaging two worlds: between their weights, and of worlds of one line alone."""

import sys
from pathlib import Path

import msgspec
import pytest
import torch

from playhead.main import main
from playhead.world.checkpoint import read_weights, save_weights
from playhead.world.config import load_config
from playhead.world.errors import WorldError
from playhead.world.training.average import average_worlds
from playhead.world.training.pipeline import write_config
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two worlds of one encoder; generator and decoder of the second are off by 1."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        save_world(make_tiny_world(), folder)
    for file in ("generator", "autoencoder"):
        path = folders[1] / f"{file}.safetensors"
        moved = {k: v + float(not k.startswith("encoder.")) for k, v in read_weights(path).items()}
        save_weights(path, moved, torch.float32)
    return folders


@pytest.mark.parametrize(("share", "decoder"), [(0.5, 0.0), (0.25, 1.0), (0.0, 0.5)])
def test_an_average_lies_where_it_is_asked_to(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, decoder: float
) -> None:
    out = tmp_path / "ab"
    given = {"world": pair[0], "other": pair[1], "out": out, "share": share, "decoder": decoder}
    words = [str(x) for k, v in given.items() for x in (f"--{k}", v)]
    monkeypatch.setattr(sys, "argv", ["main.py", "train", "average", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    for file, part in (("generator", share), ("autoencoder", decoder)):
        mine, found = (read_weights(f / f"{file}.safetensors") for f in (pair[0], out))
        for key, value in found.items():
            moved = 0.0 if key.startswith("encoder.") else part
            assert torch.allclose(value.float(), mine[key].float() + moved, atol=0.01), key
    assert (out / "world.toml").read_bytes() == (pair[0] / "world.toml").read_bytes()
    World.load(out, "cpu")


def test_worlds_of_other_encoders_or_shapes_are_refused_and_nothing_is_written(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out, path = tmp_path / "ab", pair[1] / "autoencoder.safetensors"
    save_weights(path, {k: v + 1 for k, v in read_weights(path).items()}, torch.float32)
    with pytest.raises(WorldError, match="different encoders"):
        average_worlds(*pair, out)
    config = load_config(pair[1] / "world.toml")
    latent = msgspec.structs.replace(config.latent, mean=tuple(m + 1 for m in config.latent.mean))
    write_config(pair[1] / "world.toml", msgspec.structs.replace(config, latent=latent))
    with pytest.raises(WorldError, match=r"differ in \[latent\]"):
        average_worlds(*pair, out)
    (pair[1] / "generator.safetensors").unlink()
    with pytest.raises(WorldError):
        average_worlds(*pair, out)
    assert not out.exists()
