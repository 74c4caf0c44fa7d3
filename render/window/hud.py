"""The HUD: how well the world is dreamed, what is held, and what the player ought to know."""

from collections.abc import Sequence

import pygame

from playhead.engine.stats import Stats
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

GROOVE = (255, 255, 255, 40)


def draw_hud(screen: pygame.Surface, stats: Stats, scene: str, recorded: str = "") -> None:
    """Draws the figures at the top left and the held buttons at the bottom left.

    `recorded`: what is being recorded, in a word or two.
    """
    size = text_size(screen.get_size())
    _draw_figures(screen, stats, scene, recorded, size)
    draw_held(screen, stats.held, size)


def draw_state(
    screen: pygame.Surface, stats: Stats, warn: bool, failure: str = "", control: Sequence[str] = ()
) -> None:
    """Draws at the top right what is not as usual: a pause, slow motion and, if `warn`, a slow machine.

    `failure`: why nothing is recorded, said whole if `warn`. `control`: who else plays, or would like to.
    """
    size = text_size(screen.get_size())
    right, top = screen.get_width() - size // 2, size // 2
    states = [(said, ACCENT) for said in control]
    cut = stats.link.state if stats.link is not None else ""
    if cut:
        states.append((cut, WARNING))
    if stats.paused:
        states.append(("paused", WHITE))
    elif stats.waiting:
        states.append(("waiting for a key", WHITE))
    if stats.speed != 1:
        states.append((f"{stats.speed:g}x speed", ACCENT))
    if warn and stats.slow and not stats.paused and not cut:
        states.append((f"running slow: {stats.rate:.1f} of {stats.wanted_rate:.1f} ticks/s", WARNING))
    if failure:
        said = _wrap(failure, size, screen.get_width() // 2) if warn else ["recording stopped"]
        states += [(line, WARNING) for line in said]
    for text, colour in states:
        top = draw_label(screen, text, size, colour, topright=(right, top)).bottom + size // 3


def draw_note(screen: pygame.Surface, note: str, below: int | None = None) -> None:
    """Draws a passing remark at the bottom, above `below`, in as many lines as it needs."""
    size = text_size(screen.get_size())
    bottom = screen.get_height() - 3 * size  # above the held buttons
    bottom = bottom if below is None else min(bottom, below - size // 2)
    for line in reversed(_wrap(note, size, screen.get_width() - 2 * size)):
        anchor = (screen.get_width() // 2, bottom)
        bottom = draw_label(screen, line, size, WHITE, (*SHADE[:3], 220), midbottom=anchor).top


def figures(stats: Stats, recorded: str = "") -> list[tuple[str, str]]:
    """The HUD's figures: a name and a value each, in milliseconds and ticks per second."""
    rate = "-" if stats.rate is None else f"{stats.rate:.1f}"
    rows = [
        ("tick", f"{_ms(stats.tick_p50)} ms p50   {_ms(stats.tick_p99)} ms p99"),
        ("budget", f"{_ms(stats.budget)} ms   missed {stats.missed} of {stats.counted}"),
        ("rate", f"{rate} of {stats.wanted_rate:.1f} ticks/s"),
        ("steps", f"{stats.steps}{' (auto)' if stats.auto else ''}"),
    ]
    if stats.key_p50 is not None:
        rows.append(("key to frame", f"{_ms(stats.key_p50)} ms p50   {_ms(stats.key_p99)} ms p99"))
    if stats.link is not None:
        link = stats.link
        there_and_back = f"{_ms(link.round_trip_p50)} ms p50   {_ms(link.round_trip_p99)} ms p99"
        rows.append(("round trip", there_and_back))
        smoothed = f"smoothed by {_ms(link.delay)} ms"
        rows.append(("decode", f"{_tenths(link.decode_p50)} ms {link.codec}   {smoothed}"))
    if stats.offloaded:
        rows.append(("offloaded", stats.offloaded))
    rows.append(("seed", f"{stats.seed}   tick {stats.tick}"))
    return [*rows, ("recording", recorded)] if recorded else rows


def _draw_figures(screen: pygame.Surface, stats: Stats, scene: str, recorded: str, size: int) -> None:
    title = render_text(scene, size)
    small = max(size - 2, 12)
    rows = [(render_text(n, small, GREY), render_text(v, small)) for n, v in figures(stats, recorded)]
    pad, gap, bar = size // 2, max(size // 5, 2), max(size // 3, 4)
    names = render_text("key to frame", small).get_width() + pad
    width = max(title.get_width(), small * 17, *(names + value.get_width() for _, value in rows))
    height = title.get_height() + bar + 2 * pad + sum(value.get_height() + gap for _, value in rows) - gap
    screen.blit(panel((width + 2 * pad, height + 2 * pad), size // 3), (pad, pad))
    x, y = 2 * pad, 2 * pad
    screen.blit(title, (x, y))
    y += title.get_height() + pad
    _draw_budget(screen, pygame.Rect(x, y, width, bar), stats)
    y += bar + pad
    for name, value in rows:
        screen.blit(name, (x, y))
        screen.blit(value, (x + names, y))
        y += value.get_height() + gap


def _draw_budget(screen: pygame.Surface, bar: pygame.Rect, stats: Stats) -> None:
    """The budget bar: its length is the budget, filled to the tick time's p50, with a mark at the p99."""
    screen.blit(panel(bar.size, bar.height // 2, GROOVE), bar)
    if stats.tick_p50 is None or stats.tick_p99 is None:
        return
    colour = ACCENT if stats.tick_p99 <= stats.budget else WARNING
    filled = bar.copy()
    filled.width = max(bar.height, round(bar.width * min(1.0, stats.tick_p50 / stats.budget)))
    pygame.draw.rect(screen, colour, filled, border_radius=bar.height // 2)
    mark = bar.left + round((bar.width - 2) * min(1.0, stats.tick_p99 / stats.budget))
    pygame.draw.line(screen, WHITE, (mark, bar.top - 2), (mark, bar.bottom + 1), 2)


def draw_held(screen: pygame.Surface, held: tuple[str, ...], size: int) -> None:
    """Draws the held buttons at the bottom left, in text of that size."""
    left, bottom = size // 2, screen.get_height() - size // 2
    for button in held:
        left = draw_label(screen, button.replace("_", " "), size, bottomleft=(left, bottom)).right + size // 3


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


def _tenths(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def _wrap(text: str, size: int, width: int) -> list[str]:
    """The lines of a text that are no wider than `width`, a word that is wider taken apart."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and render_text(longer, size).get_width() > width:
            longer = word
            lines.append("")
        while render_text(longer, size).get_width() > width and len(longer) > 1:
            fits = max(1, len(longer) * width // render_text(longer, size).get_width() - 1)
            lines[-1] = longer[:fits]
            lines.append("")
            longer = longer[fits:]
        lines[-1] = longer
    return lines
