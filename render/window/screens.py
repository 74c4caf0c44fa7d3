"""What covers the picture: the start-up's progress, and the help."""

from collections.abc import Mapping, Sequence

import pygame

from playhead.controls.keymap import FUNCTIONS, Keymap
from playhead.render.window.text import ACCENT, BACKGROUND, GREY, SHADE, WHITE, panel, render_text, text_size

GROOVE = (44, 48, 58)

Rows = list[tuple[tuple[str, ...], str]]
"""Keys, and what they do."""


def draw_loading(screen: pygame.Surface, stage: str, part: float) -> None:
    """Draws the start-up: the name, a bar filled to `part` (0 to 1), and what is being done."""
    size = text_size(screen.get_size())
    screen.fill(BACKGROUND)
    middle = screen.get_rect().center
    title = render_text("Playhead", size * 2)
    screen.blit(title, title.get_rect(midbottom=(middle[0], middle[1] - size)))
    bar = pygame.Rect(0, 0, min(size * 18, screen.get_width() - 2 * size), max(size // 4, 3))
    bar.center = middle
    pygame.draw.rect(screen, GROOVE, bar, border_radius=bar.height // 2)
    bar.width = max(bar.height, round(bar.width * part))
    pygame.draw.rect(screen, ACCENT, bar, border_radius=bar.height // 2)
    text = render_text(stage, size, GREY)
    screen.blit(text, text.get_rect(midtop=(middle[0], middle[1] + size)))


def draw_help(screen: pygame.Surface, keymap: Keymap) -> None:
    """Draws every key of the key map and what it does, in two columns, as large as there is room for."""
    shade = panel(screen.get_size(), 0, (*SHADE[:3], 215))
    screen.blit(shade, (0, 0))
    held = _rows(keymap.buttons, {b: b.replace("_", " ") for b in keymap.buttons})
    held += [((*keys.negative, *keys.positive), axis) for axis, keys in keymap.axes.items()]
    held += [(("mouse",), " and ".join(keymap.mouse.axes))] if keymap.mouse.axes else []
    pressed = _rows(keymap.window, FUNCTIONS)
    moved = max(0, (len(pressed) - len(held) - 1) // 2)  # so that both columns are about as long
    pressed, others = pressed[: len(pressed) - moved], pressed[len(pressed) - moved :]
    size = text_size(screen.get_size())
    while True:
        tables = [("hold", held), ("press", others)]
        columns = [
            _stacked([_column(*table, size) for table in tables if table[1]]),
            _column("press", pressed, size),
        ]
        width = sum(c.get_width() for c in columns) + 3 * size
        height = max(c.get_height() for c in columns)
        fits = width <= screen.get_width() - size and height <= screen.get_height() - size
        if fits or size <= 8:
            break
        size -= 1
    left = (screen.get_width() - width) // 2
    top = (screen.get_height() - height) // 2
    for column in columns:
        screen.blit(column, (left, top))
        left += column.get_width() + 3 * size


def _rows(names: Mapping[str, tuple[str, ...]], words: Mapping[str, str]) -> Rows:
    return [(keys, words[name]) for name, keys in names.items() if keys]


def _column(title: str, rows: Rows, size: int) -> pygame.Surface:
    """A titled table of keys, right-aligned as caps, and what they do."""
    caps = [[_cap(key, size) for key in keys] for keys, _ in rows]
    words = [render_text(text, size) for _, text in rows]
    gap = size // 3
    keys_width = max((sum(c.get_width() + gap for c in row) for row in caps), default=0)
    words_width = max((w.get_width() for w in words), default=0)
    line = caps[0][0].get_height() + gap if caps else 0
    heading = render_text(title, size, GREY)
    column = pygame.Surface((keys_width + size // 2 + words_width, line * (len(rows) + 1)), pygame.SRCALPHA)
    column.blit(heading, (keys_width + size // 2, 0))
    for number, (row, word) in enumerate(zip(caps, words, strict=True), 1):
        x, y = keys_width, number * line
        for cap in reversed(row):
            x -= cap.get_width() + gap
            column.blit(cap, (x, y))
        column.blit(word, word.get_rect(midleft=(keys_width + size // 2, y + (line - gap) // 2)))
    return column


def _stacked(tables: Sequence[pygame.Surface]) -> pygame.Surface:
    """Tables below one another."""
    size = max(table.get_width() for table in tables), sum(table.get_height() for table in tables)
    whole = pygame.Surface(size, pygame.SRCALPHA)
    top = 0
    for table in tables:
        whole.blit(table, (0, top))
        top += table.get_height()
    return whole


def _cap(key: str, size: int) -> pygame.Surface:
    """A key, drawn as the cap of one."""
    text = render_text(key, size, WHITE)
    box = (max(text.get_width() + size, size * 2), text.get_height() + size // 3)
    cap = pygame.Surface(box, pygame.SRCALPHA)
    pygame.draw.rect(cap, (*GROOVE, 255), cap.get_rect(), border_radius=size // 4)
    cap.blit(text, text.get_rect(center=cap.get_rect().center))
    return cap
