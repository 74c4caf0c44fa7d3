"""A frame as a PNG of the size that somebody asked for."""

import io

import numpy as np
import pygame

from playhead.render.window.scaling import draw_picture
from playhead.world.errors import PlayheadError

SMALLEST, LARGEST = 16, 2048
"""Pixels of a picture's width."""


def sized_png(frame: np.ndarray, width: int | None = None) -> bytes:
    """A frame, uint8 `(H, W, 3)`, as a PNG so many pixels wide, at its own aspect; None: as it is.

    At its own width, or a multiple of it, every pixel is the frame's own. Raises PlayheadError for a width
    outside 16 to 2048.
    """
    height, own, _ = frame.shape
    width = own if width is None else width
    if not SMALLEST <= width <= LARGEST:
        raise PlayheadError(f"a picture is {SMALLEST} to {LARGEST} pixels wide, not {width}")
    surface = pygame.Surface((width, max(1, round(height * width / own))), depth=24)
    draw_picture(surface, np.ascontiguousarray(frame))
    out = io.BytesIO()
    pygame.image.save(surface, out, "picture.png")
    return out.getvalue()
