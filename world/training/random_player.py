"""The random player that collects footage: ways of pressing keys that cover every set of buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from playhead.world.training.places import BUTTONS

NEAR = 14.0  # depth (ViZDoom's units, at most 85) under which a wall is in the way
STUCK_TICKS, STUCK_UNITS = 6, 12.0  # moved less than this many map units in so many ticks


@dataclass
class Surroundings:
    """What the player goes by: mean depth to the left, ahead and right, and being stuck."""

    left: float = 85.0
    ahead: float = 85.0
    right: float = 85.0
    stuck: bool = False


# What a mode answers: the buttons to hold now, and for how many ticks.
Chord = tuple[set[str], int]
Mode = Callable[[np.random.Generator, Surroundings], Chord]


def ticks(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def some(rng: np.random.Generator, **odds: float) -> set[str]:
    """Each named button with its own chance."""
    return {button for button, chance in odds.items() if rng.random() < chance}


def either(rng: np.random.Generator, verb: str) -> str:
    """`turn` or `strafe`, one way or the other."""
    return f"{verb}_{rng.choice(['left', 'right'])}"


def explore(rng: np.random.Generator, seen: Surroundings) -> Chord:
    way = "turn_left" if seen.left > seen.right else "turn_right"
    if seen.stuck:  # against a door, a ledge or a thing: try it, or leave it
        if rng.random() < 0.25:
            return {"forward", "use"}, ticks(rng, 2, 8)
        turn = way if rng.random() < 0.7 else either(rng, "turn")
        return {turn, *some(rng, back=0.6, strafe_left=0.1, strafe_right=0.1)}, ticks(rng, 6, 16)
    if seen.ahead < NEAR:
        return {way, *some(rng, forward=0.35, attack=0.1)}, ticks(rng, 3, 10)
    keys = {"forward"} | some(rng, attack=0.08, use=0.04, strafe_left=0.07, strafe_right=0.07)
    if rng.random() < 0.35:
        return keys | {either(rng, "turn")}, ticks(rng, 2, 9)
    return keys, ticks(rng, 4, 24)


def idle(rng: np.random.Generator, seen: Surroundings) -> Chord:
    return set(), ticks(rng, 5, 30)


def spin(rng: np.random.Generator, seen: Surroundings) -> Chord:
    return {either(rng, "turn"), *some(rng, attack=0.15)}, ticks(rng, 8, 30)


def dance(rng: np.random.Generator, seen: Surroundings) -> Chord:
    keys = some(rng, attack=0.35, turn_left=0.15, turn_right=0.15, forward=0.15, back=0.15)
    return keys | {either(rng, "strafe")}, ticks(rng, 3, 14)


def any_chord(rng: np.random.Generator, seen: Surroundings) -> Chord:
    """All 256 sets of buttons alike, opposite ones together too: a person's hand can."""
    held = rng.random(len(BUTTONS)) < 0.5
    return {button for button, down in zip(BUTTONS, held, strict=True) if down}, ticks(rng, 2, 14)


def shoot(rng: np.random.Generator, seen: Surroundings) -> Chord:
    aim = some(rng, turn_left=0.25, turn_right=0.25, forward=0.2)
    return aim | some(rng, attack=0.75), ticks(rng, 2, 12)


def press_use(rng: np.random.Generator, seen: Surroundings) -> Chord:
    keys = some(rng, use=0.7, forward=0.6)
    return (keys | {either(rng, "turn")} if seen.stuck else keys), ticks(rng, 2, 6)


def retreat(rng: np.random.Generator, seen: Surroundings) -> Chord:
    return {"back", *some(rng, turn_left=0.25, turn_right=0.25, attack=0.2)}, ticks(rng, 4, 20)


def tap(rng: np.random.Generator, seen: Surroundings) -> Chord:
    """One button, barely touched, then nothing for a moment."""
    if rng.random() < 0.5:
        return set(), ticks(rng, 2, 8)
    return {str(rng.choice(BUTTONS))}, ticks(rng, 1, 2)


def stand(rng: np.random.Generator, seen: Surroundings) -> Chord:
    return set(), LONGEST


def turn_on(rng: np.random.Generator, seen: Surroundings) -> Chord:
    return {either(rng, "turn")}, LONGEST


def keep_on(rng: np.random.Generator, seen: Surroundings) -> Chord:
    """One way to go, held whatever is in the way."""
    way = str(rng.choice(["forward", "back", either(rng, "strafe")], p=[0.6, 0.2, 0.2]))
    return {way, *some(rng, turn_left=0.15, turn_right=0.15, attack=0.1)}, LONGEST


@dataclass(frozen=True)
class Behaviour:
    """A mode, how often the player falls into it, and for how many ticks it stays."""

    mode: Mode
    weight: float
    low: int
    high: int


BEHAVIOURS = (
    Behaviour(explore, 5.0, 40, 160),
    Behaviour(idle, 0.6, 8, 40),
    Behaviour(spin, 1.0, 10, 50),
    Behaviour(dance, 1.2, 20, 80),
    Behaviour(any_chord, 2.5, 30, 90),
    Behaviour(shoot, 1.2, 15, 50),
    Behaviour(press_use, 0.6, 8, 30),
    Behaviour(retreat, 0.8, 8, 40),
    Behaviour(tap, 1.0, 15, 50),
)

LONGEST = 200  # ticks
STEADY = (
    Behaviour(stand, 2.0, 48, LONGEST),
    Behaviour(turn_on, 1.0, 48, LONGEST),
    Behaviour(keep_on, 1.0, 48, LONGEST),
)
"""Those of a person who holds one chord for seconds, or lays the keyboard aside."""


def behaviours(steady: float = 0.0) -> tuple[Behaviour, ...]:
    """`BEHAVIOURS`, and those of `STEADY` for a share `steady` (below 1) of the time."""
    time, other = (sum(h.weight * (h.low + h.high) for h in group) for group in (STEADY, BEHAVIOURS))
    scale = steady / (1 - steady) * other / time
    return BEHAVIOURS + tuple(replace(behaviour, weight=scale * behaviour.weight) for behaviour in STEADY)


class RandomPlayer:
    """A semi-Markov random player: a behaviour for a while, and within it one chord after another."""

    def __init__(self, rng: np.random.Generator, behaviours: Sequence[Behaviour] = BEHAVIOURS) -> None:
        self.rng = rng
        self.behaviours = behaviours
        self.odds = np.array([behaviour.weight for behaviour in behaviours])
        self.odds /= self.odds.sum()
        self.behaviour_left = self.chord_left = 0
        self.was_stuck = False
        self.keys: set[str] = set()

    def press(self, seen: Surroundings) -> np.ndarray:
        """The buttons held during the coming tick: uint8 (8,)."""
        if self.behaviour_left <= 0:
            self.behaviour = self.behaviours[self.rng.choice(len(self.behaviours), p=self.odds)]
            self.behaviour_left = ticks(self.rng, self.behaviour.low, self.behaviour.high)
            self.chord_left = 0
        # Running into something ends an explorer's chord early; any other behaviour plays on, so that
        # footage also shows what pushing at a wall looks like.
        newly_stuck = seen.stuck and not self.was_stuck and self.behaviour.mode is explore
        if self.chord_left <= 0 or newly_stuck:
            self.keys, self.chord_left = self.behaviour.mode(self.rng, seen)
            if self.rng.random() < 0.05:
                self.chord_left = ticks(self.rng, 1, 2)
        self.was_stuck = seen.stuck
        self.behaviour_left -= 1
        self.chord_left -= 1
        return np.array([button in self.keys for button in BUTTONS], dtype=np.uint8)
