"""What a rollout leaves on disk: frames as .npz, a film as .mp4 or .gif, a contact sheet as .png.

Each is written while the frames come, so that memory does not grow with the length, and under another name
until it is whole, so that an interrupted one leaves nothing.
"""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from render.sheet import contact_sheet, write_png
from render.video import VideoWriter
from world.errors import PlayheadError

FORMS = (".npz", ".mp4", ".gif", ".png")
SHEET_FRAMES = 24

Write = Callable[[np.ndarray], None]
"""Takes the frames of one tick, uint8 `(frames_per_tick, H, W, 3)`."""


class ExportError(PlayheadError):
    """A file cannot be written as asked."""


@dataclass(frozen=True)
class Clip:
    """What is known before the first frame: `size` (H, W), frames a second, and per tick its action.

    `actions` is uint8 `(ticks, buttons)`; `labels` has a line for each tick.
    """

    size: tuple[int, int]
    frames_per_tick: int
    rate: Fraction
    actions: np.ndarray
    labels: Sequence[str]


def check_export(path: Path) -> None:
    """Raises ExportError, before any work is done, for a file that could not be written."""
    if path.suffix not in FORMS:
        raise ExportError(f"{path} has no ending that says what to write; use {', '.join(FORMS)}")
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} is missing; make it first")
    if path.is_dir():
        raise ExportError(f"{path} is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"the folder {path.parent} cannot be written; choose another")


@contextmanager
def exporting(path: Path, clip: Clip) -> Iterator[Write]:
    """Hands out the function that takes the frames; `path` appears once the block has ended well."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _FORMS[path.suffix](draft, clip) as write:
            yield write
        draft.replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror}); choose another --out") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _npz(path: Path, clip: Clip) -> Iterator[Write]:
    """`frames` uint8 `(N, H, W, 3)` and `actions`, as `numpy.savez` lays them out.

    Frames wait in a file until their number is known: a stream's first tick may have fewer than the others.
    """
    with tempfile.TemporaryFile(dir=path.parent) as waiting, zipfile.ZipFile(path, "w") as archive:
        with archive.open("actions.npy", "w") as entry:
            np.lib.format.write_array(entry, clip.actions, allow_pickle=False)
        yield lambda frames: _append(waiting, frames)
        count = waiting.tell() // (clip.size[0] * clip.size[1] * 3)
        waiting.seek(0)
        with archive.open("frames.npy", "w", force_zip64=True) as entry:
            _write_header(entry, (count, *clip.size, 3))
            shutil.copyfileobj(waiting, entry)


def _write_header(entry: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(entry, header)


def _append(entry: IO[bytes], frames: np.ndarray) -> None:
    entry.write(np.ascontiguousarray(frames).data)


@contextmanager
def _video(path: Path, clip: Clip, form: str) -> Iterator[Write]:
    with VideoWriter(path, form, clip.size, clip.rate) as writer:
        yield writer.write


@contextmanager
def _sheet(path: Path, clip: Clip) -> Iterator[Write]:
    """A contact sheet of the last frame of evenly spaced ticks, the first and the last among them."""
    ticks = len(clip.actions)
    chosen = {round(t) for t in np.linspace(0, ticks - 1, min(ticks, SHEET_FRAMES))}
    kept: list[np.ndarray] = []
    seen = 0

    def write(frames: np.ndarray) -> None:
        nonlocal seen
        if seen in chosen:
            kept.append(frames[-1])
        seen += 1

    yield write
    write_png(path, contact_sheet(kept, [clip.labels[t] for t in sorted(chosen)]))


_FORMS = {
    ".npz": _npz,
    ".mp4": lambda path, clip: _video(path, clip, "mp4"),
    ".gif": lambda path, clip: _video(path, clip, "gif"),
    ".png": _sheet,
}
