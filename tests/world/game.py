"""A game small enough to be understood, as footage for tests: a wall passes by under three lamps."""

from pathlib import Path

import numpy as np

from tests.conftest import BUTTONS

SIDE = 64
LAMPS = {"forward": 0, "turn_left": 1, "attack": 2}
"""The channel that each working button lights up on the frame after, for as long as it is held."""
DARK, LIGHT = 160, 80
"""The brightest that an unlit wall is, and what a lamp adds to its channel."""


def wall(seed: int) -> np.ndarray:
    """An unlit wall of coloured bricks, uint8 `(64, 64, 3)`; every channel is `DARK` at its brightest."""
    bricks = np.random.default_rng(seed).integers(0, DARK, (8, 8, 3))
    bricks[0, 0] = DARK
    return bricks.repeat(8, 0).repeat(8, 1).astype(np.uint8)


def next_frame(frame: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The frame after `frame`, if the buttons `row` (8) are held on it."""
    lit = frame.max((0, 1)) > DARK
    light = np.array([0, 0, 0], np.uint8)
    for name, channel in LAMPS.items():
        light[channel] = LIGHT * row[BUTTONS.index(name)]
    return np.roll(frame - lit * np.uint8(LIGHT), 2, 1) + light


def wander(length: int, seed: int) -> np.ndarray:
    """Random actions uint8 `(length, 8)` of the working buttons, each set held for a few ticks."""
    draws = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    while len(rows) < length:
        row = np.array([name in LAMPS and draws.random() < 0.5 for name in BUTTONS], np.uint8)
        rows += [row] * int(draws.integers(1, 5))
    return np.stack(rows[:length])


def film(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An episode: frames uint8 `(length, 64, 64, 3)` and the actions held on each `(length, 8)`."""
    frames, actions = [wall(seed)], wander(length, seed)
    for row in actions[:-1]:
        frames.append(next_frame(frames[-1], row))
    return np.stack(frames), actions


def write_footage(folder: Path, count: int, length: int, seed: int = 0, place: str = "wall") -> Path:
    """`count` episodes in `folder`, with seeds from `seed` on. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(seed, seed + count):
        frames, actions = film(length, number)
        path = folder / f"{place}-{number:06d}.npz"
        np.savez(path, frames=frames, actions=actions, place=place, seed=number)
    return folder
