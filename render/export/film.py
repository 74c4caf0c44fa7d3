"""How a film shows what was played: pixels enlarged, what is held and the tick on top, takes side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pygame

from playhead.render.window.hud import draw_held
from playhead.render.window.text import GREY, draw_label, text_size

GAP = 4
"""Dark pixels between two takes, before they are enlarged; even, as H.264 wants its sizes."""


@dataclass(frozen=True)
class Pane:
    """One take's frame, uint8 `(H, W, 3)`, and what there is to say about it."""

    frame: np.ndarray
    held: tuple[str, ...] = ()
    tick: int = 0
    title: str = ""


@dataclass(frozen=True)
class FilmStyle:
    """`scale`: pixels a pixel. `overlay`: what is held, the tick and the title are drawn on the frame."""

    scale: int = 1
    overlay: bool = False

    def size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Height and width of the film's pictures, from those of the takes that stand side by side."""
        width = sum(width for _, width in sizes) + GAP * (len(sizes) - 1)
        return max(height for height, _ in sizes) * self.scale, width * self.scale


def draw_film(panes: Sequence[Pane], style: FilmStyle) -> np.ndarray:
    """The film's picture of takes side by side, uint8 `(height, width, 3)`; lower ones in the middle."""
    dressed = [_dress(pane, style) for pane in panes]
    height, width = style.size([pane.frame.shape[:2] for pane in panes])
    picture = np.zeros((height, width, 3), np.uint8)
    left = 0
    for part in dressed:
        top = (height - part.shape[0]) // 2
        picture[top : top + part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + GAP * style.scale
    return picture


def _dress(pane: Pane, style: FilmStyle) -> np.ndarray:
    large = pane.frame.repeat(style.scale, 0).repeat(style.scale, 1)
    if not style.overlay:
        return large
    pygame.font.init()
    height, width, _ = large.shape
    surface = pygame.image.frombytes(large.tobytes(), (width, height), "RGB")
    size = text_size((width, height))
    draw_held(surface, pane.held, size)
    corner = (width - size // 2, size // 2)
    draw_label(surface, f"tick {pane.tick}", size, GREY, topright=corner)
    if pane.title:
        draw_label(surface, pane.title, size, topleft=(size // 2, size // 2))
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)
