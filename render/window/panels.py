"""What takes the keyboard for a while, over the picture: the list of moments to go to, and a name to type."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pygame

from playhead.render.window.text import (
    ACCENT,
    GREY,
    SHADE,
    WARNING,
    WHITE,
    draw_label,
    panel,
    render_text,
    text_size,
)

if TYPE_CHECKING:
    from playhead.engine.recording.tree import Point
    from playhead.engine.timeline.timeline import Timeline

LONGEST_NAME = 40
CHOSEN = (90, 130, 170, 120)


class TextPrompt:
    """A line to type a name into; return hands it to `enter`, escape does not."""

    def __init__(self, question: str, enter: Callable[[str], None]) -> None:
        self._question, self._enter = question, enter
        self.text, self.done = "", False

    def press(self, event: pygame.Event) -> None:
        if event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            self.done = True
            self._enter(self.text.strip())
        elif event.key == pygame.K_ESCAPE:
            self.done = True
        elif event.key == pygame.K_BACKSPACE:
            self.text = self.text[:-1]
        elif event.unicode.isprintable():
            self.text = (self.text + event.unicode)[:LONGEST_NAME]

    def draw(self, screen: pygame.Surface, below: int) -> None:
        """Draws the line right above `below`."""
        size = text_size(screen.get_size())
        anchor = (screen.get_width() // 2, below - size // 2)
        draw_label(
            screen, f"{self._question}: {self.text}_", size, WHITE, (*SHADE[:3], 235), midbottom=anchor
        )


class MomentList:
    """Bookmarks and the ends of all branches, the newest first; return hands the chosen one to `go`."""

    def __init__(self, timeline: "Timeline", rate: float, go: "Callable[[Point], None]") -> None:
        """`rate`: ticks a second of the world."""
        self._go, self.done = go, False
        tree, here = timeline.tree, timeline.head
        self.rows = [
            (mark.point, f"{mark.name}   tick {mark.point.tick}") for mark in timeline.bookmarks[::-1]
        ]
        self._marks = len(self.rows)
        for branch in timeline.branches[::-1]:
            whence = "from the start"
            if branch.parent is not None:
                whence = f"from tick {branch.first} of branch {branch.parent.branch}"
            length = f"{len(branch.ticks) / rate:.1f} s"
            self.rows.append((tree.end(branch.id), f"branch {branch.id}   {whence}   {length}"))
        self._here = here
        self.chosen = next((i for i, (point, _) in enumerate(self.rows) if point == here), self._marks)

    @property
    def point(self) -> "Point":
        """The moment that is chosen."""
        return self.rows[self.chosen][0]

    def press(self, event: pygame.Event) -> None:
        steps = {pygame.K_UP: -1, pygame.K_DOWN: 1, pygame.K_PAGEUP: -10, pygame.K_PAGEDOWN: 10}
        steps |= {pygame.K_HOME: -len(self.rows), pygame.K_END: len(self.rows)}
        if event.key in steps:
            self.chosen = min(max(self.chosen + steps[event.key], 0), len(self.rows) - 1)
        elif event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            self.done = True
            self._go(self.point)
        elif event.key in (pygame.K_ESCAPE, pygame.K_TAB):
            self.done = True

    def draw(self, screen: pygame.Surface, below: int) -> None:
        """Draws as many rows about the chosen one as there is room for above `below`."""
        size = text_size(screen.get_size())
        line, pad = round(1.5 * size), size // 2
        room = max(1, (below - 4 * pad) // line - 1)
        first = min(max(0, self.chosen - room // 2), max(0, len(self.rows) - room))
        shown = list(enumerate(self.rows))[first : first + room]
        texts = [render_text(text, size, self._colour(i, point)) for i, (point, text) in shown]
        hint = render_text("up, down; return: play on from there; escape: stay", size, GREY)
        width = max(text.get_width() for text in [*texts, hint]) + 4 * pad
        box = pygame.Rect(pad, pad, width, line * (len(texts) + 1) + 2 * pad)
        screen.blit(panel(box.size, pad, (*SHADE[:3], 225)), box)
        for row, ((i, _), text) in enumerate(zip(shown, texts, strict=True)):
            top = box.top + pad + row * line
            if i == self.chosen:
                screen.blit(panel((width - 2 * pad, line), pad // 2, CHOSEN), (box.left + pad, top))
            screen.blit(text, text.get_rect(midleft=(box.left + 2 * pad, top + line // 2)))
        screen.blit(hint, hint.get_rect(midleft=(box.left + 2 * pad, box.bottom - pad - line // 2)))

    def _colour(self, row: int, point: "Point") -> tuple[int, int, int]:
        if point == self._here:
            return ACCENT
        return WARNING if row < self._marks else WHITE
