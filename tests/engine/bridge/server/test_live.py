"""A live session: the world's own rate, the newest act counts, every act is told what became of it."""

import numpy as np
import pytest

from playhead.controls.held import Held
from playhead.engine.bridge.server.acts import TAPS, ActSource
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.session import Session
from playhead.world.action import Action
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import frames_of, until

RIGHT, FORWARD = Action(frozenset({"turn_right"})), Action(frozenset({"forward"}))


def act(action: Action, hold: float = 60.0, tap: bool = False) -> p.ActRequest:
    return p.ActRequest(session="s", action=action, hold=hold, tap=tap)


def test_every_tick_of_a_live_session_can_be_dreamed_again_from_what_the_stream_tells(connect, tiny_world):
    client = connect()
    opened, _ = client.ask(p.OpenRequest(clock="live"), p.OpenReply)
    watcher = client.watch(opened.session)
    session, dreamed = Session(tiny_world, make_tiny_context(), SEED), {}
    applied = {}
    for _ in range(3):
        for action in (RIGHT, FORWARD, Action()):
            id = client.send(p.ActRequest(session=opened.session, action=action))
            client.answer(id, p.ActReply)
            applied[until(client, p.AppliedPush, id).tick] = action
    last = max(applied)
    held: dict[int, Action] = {}
    for header, frames in frames_of(watcher):
        held[header.tick], dreamed[header.tick] = header.action, frames
        if header.tick >= last:
            break
    assert all(held[tick] == action for tick, action in applied.items() if tick in held)
    assert held  # a tick may be missed by whoever watches, also the last
    if set(held) >= set(range(1, last + 1)):  # nothing was missed before the watcher came
        for tick in range(1, last + 1):
            assert np.array_equal(dreamed[tick], session.step(held[tick]))


def test_the_same_session_runs_by_either_clock_and_dreams_the_same(connect, tiny_world):
    client = connect()
    session = client.ask(p.OpenRequest(), p.OpenReply)[0].session
    client.ask(p.StepRequest(session=session, actions=[RIGHT] * 3), p.StepReply)
    with pytest.raises(BridgeError, match="lockstep") as error:
        client.ask(p.ActRequest(session=session, action=RIGHT), p.ActReply)
    assert error.value.code == "wrong_clock"
    client.ask(p.TuneRequest(session=session, clock="live"), p.DoneReply)
    with pytest.raises(BridgeError, match="live") as error:
        client.ask(p.StepRequest(session=session, actions=[RIGHT]), p.StepReply)
    assert error.value.code == "wrong_clock"
    id = client.send(p.ActRequest(session=session, action=FORWARD, hold=60))
    first = until(client, p.AppliedPush, id).tick
    client.ask(p.TuneRequest(session=session, clock="lockstep"), p.DoneReply)
    stood = client.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick
    stepped, frames = client.ask(p.StepRequest(session=session, actions=[RIGHT]), p.StepReply)
    assert stepped.first == stepped.tick == stood + 1 and first > 3
    twin = Session(tiny_world, make_tiny_context(), SEED)
    for tick in range(1, stood + 1):
        twin.step(RIGHT if tick <= 3 else FORWARD if tick >= first else Action())
    assert np.array_equal(frames, twin.step(RIGHT))


def test_a_players_pause_outlives_a_change_of_the_clock(connect):
    client = connect()
    session = client.ask(p.OpenRequest(clock="live"), p.OpenReply)[0].session
    client.ask(p.TuneRequest(session=session, paused=True), p.DoneReply)
    client.ask(p.TuneRequest(session=session, clock="lockstep"), p.DoneReply)
    with pytest.raises(BridgeError) as error:
        client.ask(p.TuneRequest(session=session, paused=False, steps=1), p.DoneReply)
    assert error.value.code == "wrong_clock"
    before = client.ask(p.StepRequest(session=session, actions=[RIGHT]), p.StepReply)[0].tick
    client.ask(p.TuneRequest(session=session, clock="live"), p.DoneReply)
    assert client.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick == before
    client.ask(p.TuneRequest(session=session, single_step=True), p.DoneReply)
    assert client.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick == before + 1
    assert (
        client.ask(p.AttachRequest(session=session), p.OpenReply)[0].steps == 2
    )  # the refused tune changed nothing


def test_what_loses_the_control_is_let_go_and_told_so(connect):
    client = connect()
    session = client.ask(p.OpenRequest(clock="live"), p.OpenReply)[0].session
    client.ask(p.TuneRequest(session=session, paused=True), p.DoneReply)
    id = client.send(p.ActRequest(session=session, action=RIGHT))
    client.answer(id, p.ActReply)
    client.ask(p.ControlRequest(session=session, want="release"), p.ControlReply)
    assert until(client, p.SupersededPush, id)


def test_an_act_is_held_until_the_next_or_until_its_time_is_over():
    now = [0.0]
    acts = ActSource(lambda: now[0])
    acts.act("a", act(RIGHT, hold=1.0))
    assert [acts.sample(), acts.sample()] == [RIGHT, RIGHT]
    now[0] = 1.5
    assert acts.sample() == Action()
    acts.act("a", act(FORWARD, hold=0.01))
    now[0] = 9.0  # the tick comes late: the act counts for it all the same, and no longer
    assert [acts.sample(), acts.sample()] == [FORWARD, Action()]


def test_the_newest_act_counts_and_those_before_it_are_superseded():
    acts = ActSource()
    first, second = act(RIGHT), act(FORWARD)
    assert acts.act("a", first) == []
    assert acts.act("a", second) == [("a", first)]
    assert acts.sample() == FORWARD and acts.applied() == [("a", second)]
    assert acts.sample() == FORWARD and acts.applied() == []
    third = act(RIGHT)
    acts.act("b", third)
    assert acts.release() == [("b", third)] and acts.sample() == Action()


def test_taps_between_two_ticks_all_count_for_one_and_their_motion_is_added_up():
    acts = ActSource()
    acts.act("a", act(Action(frozenset({"use"}), {"look": 0.75}), tap=True))
    acts.act("a", act(Action(frozenset(), {"look": 0.5, "tilt": -0.25}), tap=True))
    assert acts.act("a", act(Action(frozenset({"forward"}), {"tilt": -0.5}))) == []
    assert acts.sample() == Action(frozenset({"use", "forward"}), {"look": 1.0, "tilt": -0.75})
    assert len(acts.applied()) == 3
    assert acts.sample() == Action(frozenset({"forward"}), {"tilt": -0.5})
    lost = [pair for _ in range(3 * TAPS) for pair in acts.act("a", act(RIGHT, tap=True))]
    acts.sample()
    assert len(lost) + len(acts.applied()) == 3 * TAPS  # each is told of, however many there are


def test_what_clients_press_and_release_between_ticks_counts_as_at_a_keyboard_here():
    """Random keys, every change sent as an act: each tick is what `Held` would have sampled."""
    draws, keys = np.random.default_rng(0), ("forward", "use", "attack")
    held, acts = Held(), ActSource()
    down: set[str] = set()
    for _ in range(500):
        for key in draws.choice(keys, draws.integers(0, 5)):
            down ^= {key}
            if key in down:
                held.press(key, frozenset({key}))
            else:
                held.release(key)
            acts.act("a", act(Action(frozenset(down)), tap=True))
        assert acts.sample() == held.sample()
