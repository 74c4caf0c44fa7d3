"""How a session runs, as its player may choose it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """What is to change about how a session runs; what is None stays.

    `steps`: denoise steps a tick, from then on. `auto_steps`: the machine's speed chooses them, at most the
    world's own; given up, those are back. `hold`: the world stands still while nothing is held. `speed`: a
    factor, brought into the clock's range. `paused`: it stands still but for single steps; in `lockstep` but
    for the ticks that are asked for.
    """

    steps: int | None = None
    auto_steps: bool | None = None
    hold: bool | None = None
    speed: float | None = None
    paused: bool | None = None
    lockstep: bool | None = None
