"""A film that shows itself in a notebook: H.264 inside the page, with nothing beside it."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from playhead.world.errors import PlayheadError

WIDTH = 512
"""Pixels of the page that a film is wide, at least; smaller frames are enlarged there, crisp."""


@dataclass(frozen=True)
class Film:
    """Frames uint8 `(N, H, W, 3)` at `rate` frames a second; in a notebook, a film with its `caption`.

    Raises PlayheadError for other frames, for none of them, and for a rate that is none.
    """

    frames: np.ndarray
    rate: float
    caption: str = ""

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
            raise PlayheadError(f"a film is of frames uint8 (N, H, W, 3), not {self.frames.dtype} {shape}")
        if not 0 < self.rate <= 1000:
            raise PlayheadError(f"a film has more than 0 and at most 1000 frames a second, not {self.rate}")

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        return f"Film({count} frames of {width} x {height}, {self.rate:g} a second)"

    def mp4(self) -> bytes:
        """The film as an MP4 file. Of an odd height or width the last row or column is there twice."""
        import av

        count, height, width, _ = self.frames.shape
        rate, out = Fraction(self.rate).limit_denominator(1001), io.BytesIO()
        with av.open(out, "w", format="mp4") as file:
            stream = file.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
            stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
            for number in range(count):
                even = np.pad(self.frames[number], ((0, height % 2), (0, width % 2), (0, 0)), "edge")
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                frame.pts, frame.time_base = number, 1 / rate
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return out.getvalue()

    def _repr_html_(self) -> str:
        width = self.frames.shape[2]
        shown = width * max(1, -(-WIDTH // width))
        said = html.escape(self.caption)
        return (
            f'<figure style="margin:0"><video controls loop autoplay muted width="{shown}" '
            'style="image-rendering:pixelated;max-width:100%" src="data:video/mp4;base64,'
            f'{base64.b64encode(self.mp4()).decode()}"></video><figcaption>{said}</figcaption></figure>'
        )


def strip_film(pictures: Sequence[np.ndarray], rate: float, caption: str) -> Film:
    """A film of pictures uint8 `(h, w, 3)`; those of another size than the first are left out."""
    alike = [picture for picture in pictures if picture.shape == pictures[0].shape]
    return Film(np.stack(alike), rate, caption)
