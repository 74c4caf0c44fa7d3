"""Footage is encoded once: what is kept beside it is what would be encoded again, and never another's."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from playhead.world.checkpoint import read_float, read_weights, save_weights
from playhead.world.training import pipeline
from playhead.world.training.encoded import keep_film, key_of
from playhead.world.training.footage import Footage
from playhead.world.training.pipeline import _encoded
from playhead.world.training.run import Run
from tests.conftest import make_tiny_world
from tests.world.game import write_footage
from tests.world.training.runs import CONFIG

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_footage(tmp_path / "footage", 3, 12)
    save_weights(tmp_path / "autoencoder.safetensors", make_tiny_world().autoencoder.state_dict())
    return tmp_path


def encoded(folder: Path, length: int = 6) -> tuple[Footage, Tensor]:
    run = Run(folder / "run", steps=1)
    return _encoded(CONFIG, folder / "autoencoder.safetensors", folder / "footage", run, CPU, length)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The frames of every encoding."""
    found: list[Tensor] = []
    encode = pipeline.encode_frames
    monkeypatch.setattr(pipeline, "encode_frames", lambda m, f, d: (found.append(f), encode(m, f, d))[1])
    return found


def test_the_next_run_finds_what_the_first_encoded(folder: Path, encodings: list[Tensor]) -> None:
    footage, latents = encoded(folder)
    before = latents.clone()
    for _ in range(2):  # training normalises in place: what is kept stays as it is
        again, kept = encoded(folder)
        assert kept.dtype == before.dtype and torch.equal(kept, before)
        kept.mul_(3)
    assert len(encodings) == 1
    assert torch.equal(again.actions, footage.actions)
    assert (again.starts, again.lengths, again.places) == (footage.starts, footage.lengths, footage.places)
    assert again.frames.shape == footage.frames.shape == (0, CONFIG.frame_height, CONFIG.frame_width, 3)


def test_other_episodes_and_other_encoders_are_encoded_anew(folder: Path, encodings: list[Tensor]) -> None:
    _, latents = encoded(folder)
    first = sorted((folder / "footage").glob("*.npz"))[0]
    shutil.copyfile(first, first.with_name("z.npz"))
    more, latents_of_more = encoded(folder)
    assert len(encodings) == 2 and len(latents_of_more) == len(latents) + 12 == sum(more.lengths)
    weights = read_weights(folder / "autoencoder.safetensors")
    for part, count in (("decoder.", 2), ("encoder.", 3)):  # a sharpened decoder has the same latents
        changed = {k: v * 1.5 if k.startswith(part) else v for k, v in weights.items()}
        save_weights(folder / "autoencoder.safetensors", changed)
        _, found = encoded(folder)
        assert len(encodings) == count and torch.equal(found, latents_of_more) == (part == "decoder.")


def test_what_was_cut_short_is_encoded_anew(folder: Path, encodings: list[Tensor]) -> None:
    _, latents = encoded(folder)
    (kept,) = (folder / "footage").glob(".latents-*.safetensors")
    for damaged in (kept.read_bytes()[:-100], b""):
        kept.write_bytes(damaged)
        assert torch.equal(encoded(folder)[1], latents)
    assert len(encodings) == 3 and kept.stat().st_size > 100


def test_footage_that_cannot_be_written_beside_is_used_all_the_same(
    folder: Path, encodings: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("playhead.world.training.encoded.save_file", full)
    assert torch.equal(encoded(folder)[1], encoded(folder)[1])
    assert len(encodings) == 2 and not list((folder / "footage").glob(".latents*"))


def test_films_are_there_again_behind_the_footage(folder: Path) -> None:
    footage, latents = encoded(folder)
    key = key_of((), read_float(folder / "autoencoder.safetensors"))
    film = Footage(footage.frames, footage.actions[:9] + 1, [0], ["cellar"])
    keep_film(folder / "footage", key, film, latents[:9] * 2)
    keep_film(folder / "footage", "another", film, latents[:9] * 2)  # of another encoder
    (folder / "footage" / f".film-{key}-1.safetensors").write_bytes(b"cut short")
    again, both = encoded(folder)
    assert torch.equal(both, torch.cat([latents, latents[:9] * 2]))
    assert torch.equal(again.actions, torch.cat([footage.actions, film.actions]))
    assert again.starts == [*footage.starts, len(latents)] and again.places == [*footage.places, "cellar"]
