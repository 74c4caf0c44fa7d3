"""The picture: its own aspect, in the middle, and crisp."""

import numpy as np
import pygame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.render.window.scaling import draw_picture, fit

windows = st.tuples(st.integers(40, 4000), st.integers(40, 2500))
frames = st.sampled_from([(256, 160), (64, 64), (832, 480), (480, 832)])


def drawn(frame: np.ndarray, window: tuple[int, int]) -> tuple[np.ndarray, pygame.Rect]:
    """The window's pixels `(H, W, 3)` and the place of the picture."""
    screen = pygame.Surface(window, depth=32)
    screen.fill("white")
    area = draw_picture(screen, frame)
    return pygame.surfarray.array3d(screen).swapaxes(0, 1), area


@given(frames, windows)
def test_the_picture_keeps_its_aspect_in_the_middle_of_any_window(frame, window):
    area = fit(frame, window)
    assert pygame.Rect(0, 0, *window).contains(area)
    assert abs(area.width - area.height * frame[0] / frame[1]) <= 1 + frame[0] / frame[1]
    assert abs(area.centerx - window[0] / 2) <= 1
    assert abs(area.centery - window[1] / 2) <= 1


@given(frames, windows)
def test_the_picture_fills_the_window_in_one_direction_or_nearly(frame, window):
    area = fit(frame, window)
    assert max(area.width / window[0], area.height / window[1]) >= 0.9


@pytest.mark.parametrize("window", [(64, 64), (256, 192), (270, 200)])
def test_whole_multiples_are_scaled_pixel_by_pixel(window):
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    scale = window[0] // 64
    pixels, area = drawn(frame, window)
    assert area.size == (64 * scale, 48 * scale)
    inside = pixels[area.top : area.bottom, area.left : area.right]
    assert np.array_equal(inside, frame.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("window", [(300, 200), (90, 180), (30, 20), (150, 70)])
def test_the_bars_beside_the_picture_are_black(window):
    frame = np.full((48, 64, 3), 200, np.uint8)
    pixels, area = drawn(frame, window)
    assert (pixels[area.top : area.bottom, area.left : area.right] >= 195).all()
    pixels[area.top : area.bottom, area.left : area.right] = 0
    assert not pixels.any()


def test_between_whole_multiples_only_the_edges_of_pixels_are_blended():
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, 32:] = 255  # one edge, in the middle
    pixels, area = drawn(frame, (224, 168))  # 3.5 times
    row = pixels[area.centery, area.left : area.right, 0]
    assert ((row > 0) & (row < 255)).sum() <= 2
    assert row[0] == 0 and row[-1] == 255
