"""How exported films look: pixels kept, takes side by side, and what is held drawn on top."""

import numpy as np

from playhead.render.export.film import GAP, FilmStyle, Pane, draw_film
from playhead.world.action import Action

FRAME = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
LOW = np.full((32, 48, 3), 200, np.uint8)


def test_frames_keep_their_pixels_at_any_scale() -> None:
    assert np.array_equal(draw_film([Pane(FRAME)], FilmStyle()), FRAME)
    large = draw_film([Pane(FRAME, ("forward",), 3)], FilmStyle(scale=3))
    assert large.shape == (192, 288, 3)
    assert all(np.array_equal(large[y::3, x::3], FRAME) for y in range(3) for x in range(3))


def test_takes_stand_side_by_side_in_the_middle() -> None:
    style = FilmStyle(scale=2)
    both = draw_film([Pane(FRAME), Pane(LOW)], style)
    assert both.shape == (*style.size([(64, 96), (32, 48)]), 3) == (128, 2 * (96 + GAP + 48), 3)
    assert np.array_equal(both[::2, :192:2], FRAME)
    assert not both[:, 192 : 192 + 2 * GAP].any()
    right = both[:, 192 + 2 * GAP :]
    assert (right[32:96] == 200).all() and not right[:32].any() and not right[96:].any()


def test_what_is_held_and_the_tick_are_drawn_where_the_hud_has_them() -> None:
    style = FilmStyle(scale=4, overlay=True)
    plain, idle, held, later = (
        draw_film([Pane(FRAME, *said)], s)
        for s, said in (
            (FilmStyle(scale=4), ()),
            (style, ((), 7)),
            (style, (("turn_left", "forward"), 7)),
            (style, ((), 8)),
        )
    )
    differs = (idle != plain).any(-1)
    assert differs[:64, 200:].any() and not differs[64:].any()
    differs = (held != idle).any(-1)
    assert differs[-64:, :200].any() and not differs[:-64].any()
    assert (later != idle)[:64, 200:].any()
    assert (draw_film([Pane(FRAME, (), 7, "2")], style) != idle)[:64, :100].any()


def test_axes_are_said_with_how_far_they_are_moved() -> None:
    action = Action(frozenset({"forward", "attack"}), {"yaw": 0.5, "pitch": -1.0})
    assert action.in_words(digits=2) == ("attack", "forward", "pitch -1.00", "yaw +0.50")
