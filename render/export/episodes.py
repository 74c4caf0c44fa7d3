"""Played sessions as footage: the episodes of `train collect`, so that what was played can be trained on.

An episode begins with the frames of one moment, and has no cut: a return to the scene's start begins another.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from playhead.render.export.export import ExportError, npz, whole
from playhead.world.action import RE_ANCHOR, Action, ActionSpace


@dataclass(frozen=True)
class ExportedTick:
    """A tick that was played: its action (None where play begins) and its frames uint8 `(n, H, W, 3)`."""

    tick: int
    action: Action | None
    frames: np.ndarray


def without_cuts(moments: Iterable[ExportedTick]) -> Iterator[Iterator[ExportedTick]]:
    """The continuous parts of what was played, one after the other; each begins where it starts from."""
    part = 0

    def number(moment: ExportedTick) -> int:
        nonlocal part
        part += moment.action is not None and moment.action.holds(RE_ANCHOR)
        return part

    for played in (moments_of_part for _, moments_of_part in groupby(moments, number)):
        start, first = next(played), next(played, None)
        if first is not None:  # else nothing was played from there
            yield chain((start, first), played)


def check_episodes(space: ActionSpace) -> None:
    """Raises ExportError for a world whose actions such an episode cannot say."""
    if space.axes:
        raise ExportError(
            f"this world has the axis `{space.axes[0]}`, which an episode of `train collect` cannot say; "
            "use --as minari"
        )


def write_episode(path: Path, space: ActionSpace, place: str, moments: Iterator[ExportedTick]) -> int:
    """Writes an episode as `train collect` does, while the frames come; returns how many they are.

    Row t of its actions is held from frame t to frame t + 1; of the last row nothing is known, so nothing is
    held there. It has no seed: a dream's says nothing about whether its footage was held out.
    """
    first = next(moments)
    led: list[list[int]] = []
    nothing = [0] * len(space.seen)

    def about() -> dict[str, np.ndarray]:
        return {"actions": np.array([*led[1:], nothing], np.uint8), "place": np.array(place)}

    with whole(path) as draft, npz(draft, first.frames.shape[1:3], about) as write:
        for moment in chain([first], moments):
            row = space.seen_row(moment.action) if moment.action is not None else nothing
            led += [row] * len(moment.frames)
            write(moment.frames)
    return len(led)
