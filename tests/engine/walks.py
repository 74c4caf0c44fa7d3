"""What tests of a session do: they walk, turn, and are refused."""

from typing import Any

import numpy as np
import pytest

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.errors import PlayheadError

WALK = Action(frozenset({"forward"}))
TURN = Action(frozenset({"turn_left"}))


def refused(kind: type[PlayheadError], sentence: str) -> Any:
    """The whole sentence, which is what a player is told."""
    return pytest.raises(kind, check=lambda error: str(error) == sentence)


def play(session: Session, action: Action, ticks: int) -> np.ndarray:
    return np.concatenate([session.step(action) for _ in range(ticks)])
