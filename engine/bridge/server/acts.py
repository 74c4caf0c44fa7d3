"""What clients hold in a live session, as a source of actions for its loop."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from playhead.engine.bridge.server.lease import Lease
from playhead.engine.bridge.wire.protocol import LOCAL, ActRequest
from playhead.engine.tick import ActionSource
from playhead.world.action import Action

TAPS = 64
"""Taps that wait for one tick, at the most."""


class WaitingAct(NamedTuple):
    """An act that no tick has obeyed yet, and what it pressed anew or moved."""

    client: str
    act: ActRequest
    anew: Action


class ActSource:
    """A source of actions that is told what to hold, and says which of that was applied or superseded."""

    source = "bridge"

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._action, self._until = Action(), 0.0
        self._waiting: list[WaitingAct] = []
        self._sampled: list[tuple[str, ActRequest]] = []

    def act(self, client: str, act: ActRequest) -> list[tuple[str, ActRequest]]:
        """Holds an action from now on. Returns the acts that this one superseded."""
        with self._lock:
            taps = [w for w in self._waiting if w.act.tap]
            lost = [w for w in self._waiting if not w.act.tap] + taps[:-TAPS]
            self._waiting = [*taps[-TAPS:], WaitingAct(client, act, act.action.since(self._action))]
            self._action, self._until = act.action, self._now() + act.hold
        return [(w.client, w.act) for w in lost]

    def release(self) -> list[tuple[str, ActRequest]]:
        """Lets everything go, as when the control changes hands. Returns the acts that no tick has obeyed."""
        with self._lock:
            lost, self._waiting = self._waiting, []
            self._action = Action()
        return [(w.client, w.act) for w in lost]

    def sample(self) -> Action:
        """What is held and, once, what was tapped since the last tick: buttons together, axes added up.

        Of a tap only what it pressed anew counts: what was held before it and let go of since is let go of.
        """
        with self._lock:
            if not self._waiting and self._now() > self._until:
                self._action = Action()  # what is new counts for a tick, however late that comes
            taps = self._waiting[:-1]
            self._sampled, self._waiting = [(w.client, w.act) for w in self._waiting], []
            action = self._action
        for tap in taps:
            action = action.plus(tap.anew)
        return action

    def applied(self) -> list[tuple[str, ActRequest]]:
        """On the thread that samples: the acts that the last sample was the first to obey."""
        found, self._sampled = self._sampled, []
        return found


class SharedSource:
    """A source that is the person at this machine, or the program that was given the control."""

    def __init__(self, local: ActionSource, acts: ActSource, lease: Lease) -> None:
        self._local, self._acts, self._lease = local, acts, lease
        self.source = "keyboard"

    def sample(self) -> Action:
        held = self._local.sample()  # also when it does not count, so that no key is kept for later
        if self._lease.holder == LOCAL:
            self.source = getattr(self._local, "source", "keyboard")
            return held
        self.source = self._acts.source
        return self._acts.sample()
