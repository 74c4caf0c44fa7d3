"""Text and the few shapes of the HUD: one font, a few colours, everything drawn once and kept."""

from functools import lru_cache

import pygame

WHITE = (240, 242, 245)
GREY = (168, 174, 184)
ACCENT = (112, 200, 255)
WARNING = (255, 184, 77)
BACKGROUND = (14, 16, 21)
SHADE = (10, 12, 16, 196)
"""The background of text over the picture: dark, and seen through."""


def text_size(window: tuple[int, int]) -> int:
    """The size of text in pixels: it grows with the window and stays legible in a small one."""
    return min(max(round(min(window[0] / 54, window[1] / 32)), 13), 26)


@lru_cache(maxsize=64)
def font(size: int) -> pygame.font.Font:
    return pygame.font.Font(None, round(size * 1.35))


def forget_fonts() -> None:
    """Has fonts loaded anew: pygame does not keep them beyond the window that they were loaded for."""
    font.cache_clear()


@lru_cache(maxsize=512)
def render_text(text: str, size: int, colour: tuple[int, int, int] = WHITE) -> pygame.Surface:
    """The text as a surface, made once."""
    return font(size).render(text, True, colour)


@lru_cache(maxsize=128)
def panel(size: tuple[int, int], radius: int, colour: tuple[int, int, int, int] = SHADE) -> pygame.Surface:
    """A rounded panel to put text on."""
    surface = pygame.Surface(size, pygame.SRCALPHA)
    pygame.draw.rect(surface, colour, surface.get_rect(), border_radius=radius)
    return surface


def draw_label(
    screen: pygame.Surface,
    text: str,
    size: int,
    colour: tuple[int, int, int] = WHITE,
    background: tuple[int, int, int, int] = SHADE,
    **anchor: tuple[int, int],
) -> pygame.Rect:
    """Draws text on a panel, placed by one of pygame's anchors (`topleft=`, `midbottom=`, ...)."""
    surface = render_text(text, size, colour)
    box = surface.get_rect().inflate(size, size * 2 // 3)
    for name, point in anchor.items():
        setattr(box, name, point)
    screen.blit(panel(box.size, size // 3, background), box)
    screen.blit(surface, surface.get_rect(center=box.center))
    return box
