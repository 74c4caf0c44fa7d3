"""A tick as the loop hands it over, where its action comes from, and by whom it is played."""

from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

if TYPE_CHECKING:  # both import torch, and a window opens before that
    from playhead.engine.crew import Crew
    from playhead.engine.recording.tree import Point
    from playhead.engine.session import Session
    from playhead.world.action import Action


class ActionSource(Protocol):
    """Where actions come from: a keyboard, a script, a recording, another program.

    A source that has a `source` says by it who played what it sampled last; else that was a script.
    """

    def sample(self) -> "Action":
        """What is held during the coming tick; called once a tick, right before it."""
        ...


class Stepper(Protocol):
    """By whom ticks are played: `step` returns their frames, `finish` waits for their commit.

    `crew`: to whom sessions in lockstep may be lent, None: to nobody.
    """

    crew: "Crew | None"

    def step(self, session: "Session", action: "Action") -> np.ndarray: ...

    def finish(self, session: "Session") -> None: ...


class SingleStepper:
    """Every session for itself."""

    crew = None

    def step(self, session: "Session", action: "Action") -> np.ndarray:
        return session.step(action)

    def finish(self, session: "Session") -> None:
        session.finish()


class Timing(msgspec.Struct, frozen=True):
    """When a tick happened: seconds of the loop's clock.

    `late`: by how much it began after its deadline. `period`: the time to expect until the next tick's
    frames. `key`: when the newest key event that it obeys happened, if there was one.
    """

    sampled: float
    ready: float
    late: float
    period: float
    key: float | None


class Tick(msgspec.Struct, frozen=True):
    """One tick, handed over: frames uint8 `(frames_per_tick, H, W, 3)`, not to be written to.

    Where a session begins (a start, a restart, another scene, a return to an earlier moment) there is no
    `action`, and the frames are the last ones of its past. `source` says who played it (`keyboard`,
    `script`, `bridge`, `replay`), `point` where in the timeline it is, if there is one.
    """

    number: int
    seed: int
    steps: int
    action: "Action | None"
    frames: np.ndarray
    timing: Timing
    source: str = ""
    point: "Point | None" = None
