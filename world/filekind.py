"""What a file is that was taken for weights, by its first bytes, in words for a sentence."""

import codecs
import zipfile
from pathlib import Path

LOOKED_AT = 512
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, in place of the file: fetch that by `git lfs pull`"),
    (b"GGUF", "a GGUF file, of another program: give the one in safetensors or of torch"),
    (b"\x1f\x8b", "a gzip archive: unpack it and give what is in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and give what is in it"),
    (b"\x89HDF", "an HDF5 file, of another program: give the one in safetensors or of torch"),
)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def misfit(path: Path) -> str:
    """What a file is that holds no weights, and the mend; empty where that cannot be told."""
    try:
        return _look(path)
    except OSError:  # whoever asks is told by the system, too
        return ""


def _look(path: Path) -> str:
    if path.is_dir():
        return "a folder: give a file in it"
    if not path.stat().st_size:
        return "empty: fetch it again"
    with path.open("rb") as file:
        head = file.read(LOOKED_AT)
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: fetch the file itself, which the page links to"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if not any(name.endswith("data.pkl") for name in archive.namelist()):
                    return "a zip archive that torch did not write: unpack it and give what is in it"
            return ""
    except (zipfile.BadZipFile, ValueError, RuntimeError, OSError):  # its end is whole, and its list is not
        return "a zip archive that is damaged: fetch it again"
    return "a text: fetch the file itself" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a letter
        return "".join(text.split()).isprintable()
    except UnicodeDecodeError:
        return False
