"""What goes up a line: every change once, motion without loss, what is held again, scripts in step."""

import numpy as np
import pygame
import pytest

from playhead.controls.keymap import find_keymap
from playhead.controls.look import Look
from playhead.engine.bridge.client.held_input import (
    HOLD_SECONDS,
    RENEW_SECONDS,
    UNDER_WAY,
    HeldInput,
    RemoteScript,
)
from playhead.engine.bridge.server.acts import ActSource
from playhead.engine.bridge.wire.protocol import ActRequest
from playhead.world.action import Action

FORWARD = Action(frozenset({"forward"}))
PERIOD = 0.48
"""Seconds of a tick of Matrix-Game 2, which is played with a mouse."""


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Mouse:
    """A look as a source of actions."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def sample(self) -> Action:
        return Action(frozenset(), self._look.sample())


def test_a_mouse_moves_the_view_there_as_far_as_it_would_here():
    """Sampled sixty times a second and sent, against one sample a tick: the same axes in every tick."""
    time, keymap, draws = Time(), find_keymap("matrix-game-2"), np.random.default_rng(5)
    here, there = Look(keymap, time), Look(keymap, time)
    there.tick = PERIOD
    hand, acts = HeldInput(Mouse(there), lambda: None), ActSource()

    def tell(action: Action, tap: bool) -> int:
        acts.act("a", ActRequest(session="s", action=action, hold=HOLD_SECONDS, tap=tap))
        return 1

    for tick in range(30):
        still = tick % 5 == 4
        for _ in range(24):
            time.now += PERIOD / 24
            x, y = (0, 0) if still else draws.integers(-20, 21, 2)
            for look in (here, there):
                look.feed(
                    pygame.Event(pygame.MOUSEMOTION, rel=(int(x), int(y)), pos=(0, 0), buttons=(0, 0, 0))
                )
            found = hand.look()
            if found is not None:
                hand.tell(found[0], tell)
        seen, wanted = acts.sample().axes, here.sample()
        for axis in ("yaw", "pitch"):
            assert seen.get(axis, 0) == pytest.approx(wanted.get(axis, 0), abs=0.01), (tick, axis)


def test_what_is_held_is_told_once_and_again_before_the_server_lets_it_go(monkeypatch):
    time = Time()
    monkeypatch.setattr("playhead.engine.bridge.client.held_input.time.perf_counter", time)
    told: list[tuple[Action, bool]] = []

    class Source:
        action = FORWARD

        def sample(self) -> Action:
            return self.action

    def tell(action: Action, tap: bool) -> int:
        told.append((action, tap))
        return len(told)

    hand = HeldInput(Source(), lambda: 7.5)
    assert hand.look() == (FORWARD, 7.5) and hand.look() is None
    hand.tell(FORWARD, tell)
    for _ in range(10):
        time.now += HOLD_SECONDS / 10
        hand.renew(tell)
    assert told[0] == (FORWARD, True) and all(act == (FORWARD, False) for act in told[1:])
    assert len(told) - 1 == pytest.approx(HOLD_SECONDS / RENEW_SECONDS, abs=1)
    count = len(told)
    hand.tell_anew(tell)  # another server
    assert told[count:] == [(FORWARD, True)]
    Source.action = Action()
    found = hand.look()
    assert found is not None
    hand.tell(found[0], tell)
    time.now += HOLD_SECONDS
    hand.renew(tell)
    hand.tell_anew(tell)
    assert told[count + 1 :] == [(Action(), True)]


def test_a_script_is_played_in_order_at_the_world_s_rate_and_no_further_than_is_answered():
    script = RemoteScript([FORWARD, Action()] * 3)
    now, taken = 10.0, []
    assert [script.take(now, 1.0), script.take(now, 1.0)] == [FORWARD, None]
    now += 5
    assert [script.take(now, 1.0), script.take(now + 1, 1.0)] == [Action(), None]
    now += 5
    assert script.take(now, 1.0) is None and UNDER_WAY == 2
    script.go_on_from(3)  # a connection later, one more has been played
    while not script.over:
        action = script.take(now, 1.0)
        if action is None:
            now += script.wait(now)
            continue
        taken.append((action, now))
        script.answered()
    assert [action for action, _ in taken] == [Action(), FORWARD, Action()]
    assert [when for _, when in taken] == pytest.approx([20.0, 21.0, 22.0])
    script.end()
    script.go_on_from(0)
    assert script.over and script.take(now + 10, 1.0) is None
