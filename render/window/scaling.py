"""The picture: a frame scaled into the window, at its own aspect, crisp."""

import numpy as np
import pygame

NEARLY_FILLS = 0.92
"""Whole pixels are preferred where they fill at least this part of the space; else the picture is fitted."""


def fit(frame: tuple[int, int], window: tuple[int, int]) -> pygame.Rect:
    """Where a frame of `(width, height)` goes in a window of `(width, height)`: centred, aspect kept."""
    scale = min(window[0] / frame[0], window[1] / frame[1])
    whole = int(scale)
    if whole >= 1 and whole / scale >= NEARLY_FILLS:
        scale = whole
    size = (max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale)))
    return pygame.Rect((window[0] - size[0]) // 2, (window[1] - size[1]) // 2, *size)


def draw_picture(screen: pygame.Surface, frame: np.ndarray) -> pygame.Rect:
    """Draws a frame uint8 `(H, W, 3)` and the black bars beside it. Returns where the picture is.

    A whole multiple is scaled pixel by pixel. Any other size is sharp bilinear: the next smaller multiple
    pixel by pixel, what is left smoothly, so that only the edges between pixels are blended.
    """
    height, width, _ = frame.shape
    area = fit((width, height), screen.get_size())
    if area.size != screen.get_size():
        screen.fill("black")
    picture = pygame.image.frombuffer(frame.data, (width, height), "RGB").convert(screen)
    inside = screen.subsurface(area)
    whole = (area.width // width * width, area.height // height * height)
    if area.size == whole:
        pygame.transform.scale(picture, area.size, inside)
        return area
    if whole[0] and whole[1] and whole != (width, height):
        picture = pygame.transform.scale(picture, whole)
    pygame.transform.smoothscale(picture, area.size, inside)
    return area
