"""How many channels latents have is a matter of the recipe alone, from the footage to what is measured."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from playhead.main import main
from playhead.world.config import LatentConfig
from playhead.world.training.pipeline import write_config
from tests.world.game import write_footage
from tests.world.training.runs import CONFIG

CHANNELS = 12
"""One and a half times as many as tiny worlds have."""


def test_a_recipe_of_more_channels_becomes_a_world_that_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["main.py", *line.split(), "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        assert end.value.code == 0, said.err
        return said.out

    monkeypatch.chdir(tmp_path)
    replace = msgspec.structs.replace
    wide = replace(
        CONFIG,
        latent=LatentConfig(CHANNELS, *CONFIG.latent_shape[1:]),
        autoencoder=replace(CONFIG.autoencoder, latent_channels=CHANNELS),
        generator=replace(CONFIG.generator, in_channels=2 * CHANNELS, out_channels=CHANNELS),
    )
    write_config(Path("recipe.toml"), wide)
    write_footage(Path("footage"), 2, 12)
    write_footage(Path("heldout"), 1, 72, seed=900_000)
    each = "--footage footage --recipe recipe.toml --steps 2 --clips 2"
    run(f"train autoencoder {each} --out a")
    run(f"train generator {each} --out g --length 6 --autoencoder a/autoencoder.safetensors")
    found = json.loads(run("evaluate --world g/world --episodes heldout --ticks 64 --clips 1 --json"))
    assert found["all"]["ceiling"] > 0 and found["all"]["dreamed"]["64"] > 0
