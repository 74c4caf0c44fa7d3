"""What is kept of frames: all of them as .npz or a folder of pictures, a film, a contact sheet.

Each is written while the frames come, so that memory does not grow with the length, and under another name
until it is whole, so that an interrupted one leaves nothing.
"""

import itertools
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from playhead.render.export.sheet import contact_sheet, write_png
from playhead.render.export.video import VideoWriter
from playhead.world.action import Action
from playhead.world.config import WorldConfig
from playhead.world.errors import PlayheadError

FORMS = (".npz", ".mp4", ".gif", ".png")
"""Endings of files; a name without one is a folder."""
SHEET_FRAMES = 24

Write = Callable[[np.ndarray], None]
"""Takes the frames of one tick, uint8 `(frames_per_tick, H, W, 3)`."""


class ExportError(PlayheadError):
    """A file cannot be written as asked."""


@dataclass(frozen=True)
class ClipInfo:
    """What is known before the first frame: `size` (H, W), frames a second, and per tick its action.

    `actions` is `(ticks, buttons and axes)`; `labels` has a line for each tick.
    """

    size: tuple[int, int]
    frames_per_tick: int
    rate: Fraction
    actions: np.ndarray
    labels: Sequence[str]

    @classmethod
    def of(
        cls, config: WorldConfig, actions: Sequence[Action], first: int, size: tuple[int, int] | None = None
    ) -> "ClipInfo":
        """The clip of a world's actions, the first of which is tick number `first`; `size` if not its own."""
        names = ["+".join(sorted(action.buttons)) or "." for action in actions]
        return cls(
            size=size or (config.frame_height, config.frame_width),
            frames_per_tick=config.frames_per_tick,
            rate=Fraction(config.ticks_per_second).limit_denominator(1001) * config.frames_per_tick,
            actions=np.array([config.action.encode(action) for action in actions]).astype(
                np.uint8 if config.action.binary else np.float32
            ),
            labels=[f"{tick}  {name}" for tick, name in enumerate(names, first)],
        )


def check_export(path: Path) -> None:
    """Raises ExportError, before any work is done, for a file that could not be written."""
    if path.suffix not in _FORMS:
        raise ExportError(f"{path} has no ending that says what to write; use {', '.join(FORMS)} or a folder")
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} is missing; make it first")
    if path.suffix and path.is_dir():
        raise ExportError(f"{path} is a folder; name a file in it")
    if not path.suffix and path.exists():
        raise ExportError(f"{path} is there already; name a folder that is new")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"the folder {path.parent} cannot be written; choose another")


@contextmanager
def exporting(path: Path, clip: ClipInfo) -> Iterator[Write]:
    """Hands out the function that takes the frames; `path` appears once the block has ended well."""
    with whole(path) as draft, _FORMS[path.suffix](draft, clip) as write:
        yield write


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Hands out where to write; that becomes `path` once the block has ended well, and else is removed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


@contextmanager
def npz(path: Path, size: tuple[int, int], arrays: Callable[[], Mapping[str, np.ndarray]]) -> Iterator[Write]:
    """`frames` uint8 `(N, H, W, 3)`, and what `arrays` gives at the end, as `numpy.savez` lays them out.

    Frames wait in a file until their number is known: a stream's first tick may have fewer than the others.
    """
    with tempfile.TemporaryFile(dir=path.parent) as waiting, zipfile.ZipFile(path, "w") as archive:
        yield lambda frames: _append(waiting, frames)
        count = waiting.tell() // (size[0] * size[1] * 3)
        waiting.seek(0)
        with archive.open("frames.npy", "w", force_zip64=True) as entry:
            _write_header(entry, (count, *size, 3))
            shutil.copyfileobj(waiting, entry)
        for name, array in arrays().items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_header(entry: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(entry, header)


def _append(entry: IO[bytes], frames: np.ndarray) -> None:
    entry.write(np.ascontiguousarray(frames).data)


@contextmanager
def _video(path: Path, clip: ClipInfo, form: str) -> Iterator[Write]:
    with VideoWriter(path, form, clip.size, clip.rate) as writer:
        yield writer.write


@contextmanager
def _sheet(path: Path, clip: ClipInfo) -> Iterator[Write]:
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


@contextmanager
def _pictures(path: Path, clip: ClipInfo) -> Iterator[Write]:
    """A PNG of every frame, numbered in order."""
    path.mkdir()
    numbers = itertools.count()

    def write(frames: np.ndarray) -> None:
        for frame in frames:
            write_png(path / f"{next(numbers):06d}.png", frame)

    yield write


_FORMS = {
    "": _pictures,
    ".npz": lambda path, clip: npz(path, clip.size, lambda: {"actions": clip.actions}),
    ".mp4": lambda path, clip: _video(path, clip, "mp4"),
    ".gif": lambda path, clip: _video(path, clip, "gif"),
    ".png": _sheet,
}
