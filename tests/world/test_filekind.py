"""Files that are taken for checkpoints and are something else: one sentence says what."""

import gzip
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from playhead import main as command_line
from playhead.world.errors import WorldError
from playhead.world.filekind import misfit
from playhead.world.hub import fetch
from playhead.world.importing import ImportProblem, read_checkpoint
from playhead.world.world import World

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Not here</title></head></html>\n"


class Model(torch.nn.Module):
    """What cannot be loaded as weights only."""


def packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "see the other file")


def torn(path: Path) -> None:
    """A zip archive whose list of what is in it is damaged, and whose end is whole."""
    packed(path)
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"PK\1\3"))


DAMAGED = "a zip archive that is damaged: fetch it again"
NOT_TORCHS = "a zip archive that torch did not write: unpack it and give what is in it"
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (lambda path: path.write_bytes(LFS), "it is a Git LFS pointer, in place of the file: fetch"),
    "page": (lambda path: path.write_bytes(PAGE), "it is a web page: fetch the file itself"),
    "empty": (lambda path: path.touch(), "it is empty: fetch it again"),
    "folder": (lambda path: path.mkdir(), "it is a folder: give a file in it"),
    "text": (lambda path: path.write_bytes("Access to é is restricted.\n".encode()), "it is a text: fetch"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x" * 99)), "it is a gzip archive: unpack"),
    "zip": (packed, "it is a zip archive that torch did not write"),
    "torn": (torn, "it is a zip archive that is damaged: fetch it again"),
    "gguf": (lambda path: path.write_bytes(b"GGUF\3\0\0\0" + b"\0" * 99), "it is a GGUF file"),
    "class": (lambda path: torch.save(Model(), path), "Python objects (`tests.world.test_filekind.Model`)"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "is damaged, or no checkpoint"),
}


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_checkpoint_is_said_in_one_sentence(
    kind: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make, words = KINDS[kind]
    make(tmp_path / name)
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["main.py", "worlds", "add", str(tmp_path / name)])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    said = capfd.readouterr().err
    assert (end.value.code, said.count("\n")) == (2, 1), said
    assert f"{name}" in said and words in said
    assert "mmap" not in said and "\x1b" not in said and "weights_only" not in said
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights"])
@pytest.mark.parametrize("form", ["safetensors", "torch", "old torch"])
def test_a_checkpoint_is_read_by_what_is_in_it_and_not_by_its_name(
    form: str, name: str, tmp_path: Path
) -> None:
    tensors = {"a.weight": torch.arange(6.0)}
    if form == "safetensors":
        save_file(tensors, tmp_path / name)
    else:
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=form == "torch")
    assert torch.equal(read_checkpoint(tmp_path / name)["a.weight"], tensors["a.weight"])


@pytest.mark.parametrize(
    ("address", "mend"),
    [
        ("https://huggingface.co/A/b-c/resolve/main/d/e.pt?download=true", "write hub:A/b-c/d/e.pt,"),
        ("https://huggingface.co/A/b/blob/main/e.safetensors", "write hub:A/b/e.safetensors,"),
        ("HTTP://example.org/e.pt", "write hub:OWNER/REPO/FILE for a file on the hub,"),
        ("https://huggingface.co/A/b", "write hub:OWNER/REPO/FILE for a file on the hub,"),
    ],
)
def test_for_a_web_address_the_form_is_named_that_fetches_it(address: str, mend: str) -> None:
    with pytest.raises(ImportProblem, match="is a web address; ") as problem:
        fetch(address)
    assert mend in str(problem.value)


@pytest.mark.parametrize("kind", ["pointer", "torn"])
def test_weights_of_a_world_that_are_something_else_are_named_as_that(
    kind: str, tiny_world_folder: Path, tmp_path: Path
) -> None:
    world = shutil.copytree(tiny_world_folder, tmp_path / "world")
    make, words = KINDS[kind]
    make(world / "generator.safetensors")
    with pytest.raises(WorldError) as problem:
        World.load(world, "cpu")
    assert f"generator.safetensors is no safetensors file; {words}" in str(problem.value)


def test_no_byte_of_an_archive_keeps_what_it_is_from_being_told(tmp_path: Path) -> None:
    """Python's own look whether a file is an archive raises where its end speaks of several disks."""
    path = tmp_path / "weights.pt"
    torch.save({"a.weight": torch.zeros(2)}, path)
    whole = path.read_bytes()
    for at in range(len(whole) - 500, len(whole)):
        for bit in (1, 128, 255):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            assert misfit(path) in ("", DAMAGED, NOT_TORCHS), at
