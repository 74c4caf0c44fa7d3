"""Reading a picture file: upright, whole, and in the size that a world wants."""

import io
import struct
from pathlib import Path

import numpy as np

from playhead.scenes.scene import SceneError

_EXIF_STARTS = ((b"\xff\xd8", b"Exif\0\0"), (b"\x89PNG", b"eXIf"), (b"RIFF", b"EXIF"))
"""How the files begin that carry Exif, and what stands before it there: JPEG, PNG, WebP."""
_TIFF = (b"II*\0", b"MM\0*")
_ORIENTATION = 0x0112


def read_picture(path: Path, height: int, width: int) -> np.ndarray:
    """A picture file as uint8 `(height, width, 3)`: turned upright, cut about its middle and scaled.

    Raises SceneError for a file that is no picture, or that is not whole.
    """
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise _unreadable(str(path), error) from None
    return decode_picture(data, height, width, str(path))


def decode_picture(data: bytes, height: int, width: int, named: str) -> np.ndarray:
    """As `read_picture`, of what a file holds. `named`: what a message calls it."""
    import av

    try:
        if data.startswith(b"GIF8") and not data.rstrip(b"\0").endswith(b";"):
            raise ValueError("it is cut short")  # which its decoder does not mind
        # Not by name: `a:b.png` has a protocol, `%d.png` is a series.
        with av.open(io.BytesIO(data), "r") as file:
            if file.format.name == "jpeg_pipe":
                # Else what the file lacks is made up, in grey or green.
                file.streams.video[0].codec_context.options = {"err_detect": "explode"}
            frame = next(file.decode(video=0))
        pixels = _upright(frame.to_ndarray(format="rgb24"), _orientation(data), frame.rotation)
    except (OSError, ValueError, IndexError, StopIteration, MemoryError, av.error.FFmpegError) as error:
        raise _unreadable(named, error) from None
    cut = _cover(pixels, height, width)
    scaled = av.VideoFrame.from_ndarray(cut, format="rgb24").reformat(width, height)
    return np.ascontiguousarray(scaled.to_ndarray())


def _unreadable(named: str, error: BaseException) -> SceneError:
    reason = str(error) or "it holds no picture"
    return SceneError(f"{named} is no picture that can be read ({reason}); give a .png or .jpg")


def _cover(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest part about the middle that has the shape of `height` to `width`.

    It is cut before anything is scaled: a panorama scaled to cover would not fit into memory.
    """
    tall, wide, _ = pixels.shape
    rows = min(tall, max(1, round(wide * height / width)))
    columns = min(wide, max(1, round(tall * width / height)))
    top, left = (tall - rows) // 2, (wide - columns) // 2
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def _upright(pixels: np.ndarray, orientation: int | None, rotation: int) -> np.ndarray:
    """Pixels turned as Exif's `orientation` (1 to 8) says; without it by the decoder's `rotation`."""
    if orientation is None:
        return np.rot90(pixels, round(rotation / 90))
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _orientation(data: bytes) -> int | None:
    """Exif's orientation in a picture file; None where it has none.

    PyAV gives the angle alone, which is the same of a picture turned by half and of a mirrored one.
    """
    start = 0 if data.startswith(_TIFF) else None
    for begins, before in _EXIF_STARTS:
        if data.startswith(begins) and (found := data.find(before)) >= 0:
            positions = [data.find(mark, found, found + 32) for mark in _TIFF]
            start = min((at for at in positions if at >= 0), default=None)
    if start is None:
        return None
    order = "<" if data.startswith(b"I", start) else ">"
    try:
        (table,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + table)
        for entry in range(start + table + 2, start + table + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else None
    except struct.error:  # it points beyond the file's end
        return None
    return None
