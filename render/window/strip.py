"""The timeline strip: thumbnails of the way to a moment, and under them every branch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
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
    from playhead.engine.recording.tree import Bookmark, Branch, Point
    from playhead.engine.timeline.timeline import Timeline

GROOVE = (72, 78, 90)
LANES = 6
"""Branches below one another, at the most; where there are more at once, they share lanes."""
KEPT = 2048
"""Thumbnails that are kept as they are drawn."""


@dataclass(frozen=True)
class _Plan:
    """Where things go. `way`: the branches on the way to the moment, and the last tick of each on it."""

    inside: pygame.Rect
    size: int
    last: int
    way: dict[int, int]
    lanes: dict[int, int]
    lane: int

    @property
    def thumbnails(self) -> pygame.Rect:
        return pygame.Rect(
            self.inside.left, self.inside.top + self.size * 3 // 2, self.inside.width, 3 * self.size
        )

    def x(self, tick: int) -> int:
        return self.inside.left + round((self.inside.width - 1) * tick / self.last)

    def y(self, branch: int) -> int:
        """The middle of a branch's lane."""
        return self.thumbnails.bottom + self.size // 2 + self.lanes[branch] * self.lane + self.lane // 2


class Strip:
    """Draws a timeline along the lower edge of a window, its ticks from left to right.

    The way to the moment is bright, other branches grey; flags are bookmarks, and the white line is where the
    moment is.
    """

    def __init__(self) -> None:
        self._scaled: dict[tuple[Point, int], pygame.Surface] = {}

    def draw(self, screen: pygame.Surface, timeline: "Timeline", point: "Point", rate: float) -> pygame.Rect:
        """Draws the strip for a moment of a world of `rate` ticks a second. Returns where it is."""
        branches = timeline.branches
        size = text_size(screen.get_size())
        lanes = assign_lanes(branches)
        lane = max(size // 2, 5)
        pad = size // 2
        high = size * 5 + lane * (max(lanes.values()) + 1) + 2 * pad
        box = pygame.Rect(pad, screen.get_height() - high - pad, screen.get_width() - 2 * pad, high)
        screen.blit(panel(box.size, pad, (*SHADE[:3], 225)), box)
        last = max(1, *(branch.last for branch in branches))
        plan = _Plan(box.inflate(-2 * pad, -2 * pad), size, last, way_to(branches, point), lanes, lane)
        self._draw_thumbnails(screen, plan, timeline.thumbnails(), point)
        for branch in sorted(branches, key=lambda b: b.id in plan.way):  # the way lies on top
            _draw_branch(screen, plan, branch)
        _draw_bookmarks(screen, plan, timeline.bookmarks)
        _draw_words(screen, plan, timeline, point, rate)
        x = plan.x(point.tick)
        pygame.draw.line(screen, WHITE, (x, plan.thumbnails.top - 2), (x, plan.inside.bottom), 2)
        return box

    def _draw_thumbnails(
        self, screen: pygame.Surface, plan: _Plan, found: "Iterable[tuple[Point, np.ndarray]]", point: "Point"
    ) -> None:
        """Each at its tick, as many as there is room for."""
        reach = {**plan.way, point.branch: plan.last}  # of its own branch also what comes after it
        row, free = plan.thumbnails, plan.inside.left
        for there, small in sorted(found, key=_tick):
            if there.tick > reach.get(there.branch, -1):
                continue
            height, width, _ = small.shape
            wide = max(1, round(width * row.height / height))
            left = min(plan.x(there.tick), row.right - wide)
            if left >= free:
                screen.blit(self._scale(there, small, (wide, row.height)), (left, row.top))
                free = left + wide + 2

    def _scale(self, point: "Point", small: np.ndarray, size: tuple[int, int]) -> pygame.Surface:
        key = point, size[1]
        if key not in self._scaled:
            if len(self._scaled) >= KEPT:
                self._scaled.clear()
            height, width, _ = small.shape
            picture = pygame.image.frombytes(np.ascontiguousarray(small).tobytes(), (width, height), "RGB")
            self._scaled[key] = pygame.transform.smoothscale(picture, size)
        return self._scaled[key]


def _tick(thumbnail: "tuple[Point, np.ndarray]") -> int:
    return thumbnail[0].tick


def way_to(branches: "Sequence[Branch]", point: "Point") -> dict[int, int]:
    """The branches on the way to a moment, and the last tick of each that is on it."""
    known = {branch.id: branch for branch in branches}
    way, number, last = {}, point.branch, point.tick
    while number in known:
        way[number] = last
        parent = known[number].parent
        if parent is None:
            break
        number, last = parent.branch, parent.tick
    return way


def assign_lanes(branches: "Iterable[Branch]") -> dict[int, int]:
    """The lane of each branch, from 0 on: the first in which it is in nobody's way, or else the last."""
    ends: list[list[tuple[int, int]]] = [[]]
    lanes = {}
    for branch in branches:
        span = branch.first, max(branch.last, branch.first + 1)
        free = (n for n, taken in enumerate(ends) if all(span[0] >= b or span[1] <= a for a, b in taken))
        lane = next(free, len(ends))
        if lane == len(ends) and lane < LANES:
            ends.append([])
        lanes[branch.id] = lane = min(lane, LANES - 1)
        ends[lane].append(span)
    return lanes


def _draw_branch(screen: pygame.Surface, plan: _Plan, branch: "Branch") -> None:
    y, thick = plan.y(branch.id), max(2, plan.lane // 2)
    on_way = branch.id in plan.way
    first, last = plan.x(branch.first), plan.x(branch.last)
    if branch.parent is not None and branch.parent.branch in plan.lanes:
        line = (first, plan.y(branch.parent.branch)), (first, y)
        pygame.draw.line(screen, ACCENT if on_way else GROOVE, *line, 2)
    pygame.draw.line(screen, GREY if on_way else GROOVE, (first, y), (max(last, first + 2), y), thick)
    if on_way:
        pygame.draw.line(screen, ACCENT, (first, y), (max(first, plan.x(plan.way[branch.id])), y), thick)


def _draw_bookmarks(screen: pygame.Surface, plan: _Plan, bookmarks: "Iterable[Bookmark]") -> None:
    """Flags, and the names of as many as there is room for."""
    free = plan.inside.left
    for mark in sorted(bookmarks, key=lambda mark: mark.point.tick):
        if mark.point.branch not in plan.lanes:
            continue
        x, y, high = plan.x(mark.point.tick), plan.y(mark.point.branch), plan.lane
        pygame.draw.line(screen, WARNING, (x, y - high), (x, y + high // 2), 2)
        pygame.draw.polygon(screen, WARNING, [(x, y - high), (x + high, y - high // 2), (x, y)])
        size = max(plan.size - 2, 11)
        width = render_text(mark.name[:24], size).get_width() + 2 * size
        left = min(x, plan.inside.right - width)
        if left >= free:
            draw_label(screen, mark.name[:24], size, WARNING, topleft=(left, plan.thumbnails.top + 2))
            free = left + width


def _draw_words(
    screen: pygame.Surface, plan: _Plan, timeline: "Timeline", point: "Point", rate: float
) -> None:
    end = timeline.tree.branch(point.branch).last
    ago = f"   {(end - point.tick) / rate:.1f} s before its end" if point.tick < end else ""
    left = render_text(f"branch {point.branch}   tick {point.tick} of {end}{ago}", plan.size)
    screen.blit(left, plan.inside.topleft)
    count, marks = len(plan.lanes), len(timeline.bookmarks)
    words = f"{count} branch{'es' if count > 1 else ''}   {marks} bookmark{'s' if marks != 1 else ''}"
    right = render_text(words, plan.size, GREY)
    if left.get_width() + right.get_width() + plan.size < plan.inside.width:
        screen.blit(right, right.get_rect(topright=plan.inside.topright))
