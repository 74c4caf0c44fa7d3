"""Video on disk, encoded as the frames come: H.264 in .mp4, and .gif for pages that play nothing else."""

import importlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from playhead.world.errors import PlayheadError

if TYPE_CHECKING:
    from av.filter import Graph


class VideoWriter:
    """Encodes frames uint8 `(n, H, W, 3)` into `path` at `rate` frames a second; memory does not grow.

    `form` is `mp4` or `gif`. The file is complete once `close` has been called. Raises PlayheadError without
    PyAV, which nothing but films needs.
    """

    def __init__(self, path: Path, form: str, size: tuple[int, int], rate: Fraction) -> None:
        av = _import_av()
        height, width = size
        # `file:` because FFmpeg else takes what stands before a colon in a name for a protocol.
        self._container = av.open(f"file:{path}", "w", format=form, options=_MUXER[form])
        self._stream = self._container.add_stream(_ENCODER[form], rate=rate, options=_OPTIONS[form])
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = _PIXELS[form]
        self._time_base = 1 / rate
        self._count = 0
        self._palette = _palette_graph(width, height, self._time_base) if form == "gif" else None

    def write(self, frames: np.ndarray) -> None:
        """Appends frames."""
        av = _import_av()
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self._count, self._time_base
            self._count += 1
            if self._palette is not None:
                self._palette.push(frame)
                frame = self._palette.pull()
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Flushes the encoder and ends the file."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MUXER = {"mp4": {"movflags": "faststart"}, "gif": {"loop": "0"}}
_ENCODER = {"mp4": "libx264", "gif": "gif"}
_PIXELS = {"mp4": "yuv420p", "gif": "pal8"}
_OPTIONS = {"mp4": {"crf": "16", "preset": "medium"}, "gif": {}}


def _palette_graph(width: int, height: int, time_base: Fraction) -> "Graph":
    """A filter that gives every frame the 256 colours that suit it, so that none has to wait for the last."""
    graph: Graph = _import_av().filter.Graph()
    rgb = _import_av().VideoFormat("rgb24")
    source = graph.add_buffer(width=width, height=height, format=rgb, time_base=time_base)
    split = graph.add("split")
    make = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(make, 1, 0)
    make.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def can_film() -> bool:
    """Whether PyAV is here."""
    try:
        _import_av()
    except PlayheadError:
        return False
    return True


def _import_av() -> Any:  # noqa: ANN401 (a module)
    try:
        return importlib.import_module("av")
    except ImportError:
        raise PlayheadError("a film needs PyAV, which is missing or broken: pip install av") from None
