"""Hashes of frames, by which tests compare what was seen with what was recorded."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.schema import chain


def frame_hashes(films: Iterable[np.ndarray]) -> list[str]:
    """The hash of every tick's frames, each chained to the one before, as a recording has them."""
    found, before = [], b""
    for frames in films:
        before = chain(before, frames)
        found.append(before.hex())
    return found


def recorded_hashes(file: Path) -> list[str]:
    """Those of a recording's newest branch, its start's first."""
    kept = Recording.read(file)
    branch = kept.tree.branch(kept.tree.newest)
    return [branch.start.hex(), *(tick.hash.hex() for tick in kept.tree.path(branch.id))]
