"""The pictures of an evaluation: a contact sheet, real above and dreamed below, and a time-lapse."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playhead.render.export.sheet import contact_sheet, write_png
from playhead.render.export.video import VideoWriter, can_film
from playhead.world.clips import CONTEXT, Clip
from playhead.world.evaluation import LOOKS

ROWS = 6
LAPSE_FRAMES = 600


class Album:
    """Shows the first clip of each place: `sheet.png`, anew at every look, and `timelapse.mp4` in `folder`.

    The time-lapse shows about `LAPSE_FRAMES` ticks, evenly spread, at twenty a second. One that is resumed
    goes on in a file of its own, named by its first tick. Without PyAV there is none: `films` says so.
    """

    def __init__(self, folder: Path, clips: Sequence[Clip], ticks: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ticks, self.films = folder, ticks, can_film()
        self.every = max(1, ticks // LAPSE_FRAMES)
        places = [clip.place for clip in clips]
        self.rows = sorted({place: i for i, place in reversed(list(enumerate(places)))}.values())[:ROWS]
        self.places = [places[i] for i in self.rows]
        self.real = [clips[i].frames for i in self.rows]
        self.looks = [look for look in (1, *LOOKS) if look <= ticks]
        self.dreamed: dict[int, list[np.ndarray]] = {}
        self._video: VideoWriter | None = None

    def watch(self, tick: int, frames: Tensor) -> None:
        """Takes the frames `(B, H, W, 3)` of a tick."""
        shown = frames[self.rows]
        if tick in self.looks:
            self.dreamed[tick] = list(shown.numpy())
            write_png(self.folder / "sheet.png", self.sheet())
        if self.films and tick % self.every == 0:
            self._append(tick, shown)
        if tick == self.ticks and self._video is not None:
            self._video.close()
            self._video = None

    def sheet(self) -> np.ndarray:
        """Two rows a place: real frames of its clip, and under them what was dreamed at the looks."""
        looks, pictures, labels = sorted(self.dreamed), [], []
        for row, (place, real) in enumerate(zip(self.places, self.real, strict=True)):
            last = len(real) - 1
            for look in looks:
                at = min(last, CONTEXT - 1 + look)
                pictures.append(real[at].numpy())
                labels.append(f"{place}: real, +{at - CONTEXT + 1}")
            for look in looks:
                pictures.append(self.dreamed[look][row])
                labels.append(f"{place}: dreamed, tick {look}")
        return contact_sheet(pictures, labels, columns=len(looks))

    def _append(self, tick: int, shown: Tensor) -> None:
        half = -(-len(shown) // 2)
        missing = 2 * half - len(shown)
        if missing:
            shown = torch.cat([shown, torch.zeros_like(shown[:missing])])
        grid = torch.cat([torch.cat(list(shown[:half]), 1), torch.cat(list(shown[half:]), 1)]).numpy()
        if self._video is None:
            name = "timelapse.mp4" if tick == self.every else f"timelapse-from-{tick}.mp4"
            self._video = VideoWriter(self.folder / name, "mp4", grid.shape[:2], Fraction(20))
        self._video.write(grid[None])
