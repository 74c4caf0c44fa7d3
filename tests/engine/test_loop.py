"""The loop: a session in real time, on its own thread, with fresh input and commits off the path."""

import numpy as np
import pytest

from playhead.engine.loop import Loop, LoopError
from playhead.engine.session import Session
from playhead.engine.tick import Tick
from playhead.engine.tuning import Tuning
from playhead.world.action import Action
from playhead.world.errors import PlayheadError, WorldError
from tests.conftest import make_tiny_context, make_tiny_world
from tests.engine.fake_time import FakeTime
from tests.engine.loops import RIGHT, Cycling, Holding, play


@pytest.fixture
def session(tiny_world, tiny_context) -> Session:
    return Session(tiny_world, tiny_context, seed=3)


def test_a_loop_plays_exactly_what_stepping_by_hand_plays(tiny_world, tiny_context, session):
    ticks = play(lambda: session, Cycling(), 12)
    again, source = Session(tiny_world, tiny_context, seed=3), Cycling()
    assert np.array_equal(ticks[0].frames, again.frames)
    for tick in ticks[1:]:
        assert np.array_equal(tick.frames, again.step(source.sample()))


def test_a_tick_tells_all_that_it_was_made_from(session):
    ticks = play(lambda: session, Cycling(), 3)
    assert [tick.number for tick in ticks] == [0, 1, 2, 3]
    assert [tick.action and sorted(tick.action.buttons) for tick in ticks] == [
        None, ["back"], ["turn_left"], ["turn_right"],
    ]  # fmt: skip
    assert {(tick.seed, tick.steps) for tick in ticks} == {(3, 2)}


def test_input_is_sampled_after_the_wait_and_the_commit_follows_the_hand_over(tiny_world, tiny_context):
    log: list[str] = []
    fake = FakeTime()

    class Watched(Session):
        def step(self, action):
            log.append("step")
            return super().step(action)

        def finish(self):
            if self._pending:
                log.append("commit")
            super().finish()

    class Source(Holding):
        def sample(self):
            log.append("sample")
            return super().sample()

    def sleep(seconds):
        log.append("sleep")
        FakeTime.sleep(fake, seconds)

    fake.sleep = sleep
    play(
        lambda: Watched(tiny_world, tiny_context, 0),
        Source(),
        3,
        then=lambda loop, tick: log.append("hand over"),
        make_clock=fake.clock,
    )
    assert log[0] == "hand over"  # the context's last frame: something to see at once
    assert log[1:5] == ["sample", "step", "hand over", "commit"]
    assert log[5:] == ["sleep", "sample", "step", "hand over", "commit"] * 2


def test_a_tick_of_two_frames_is_handed_over_whole():
    world = make_tiny_world(time_factor=2)
    ticks = play(lambda: Session(world, make_tiny_context(), 0), Holding(), 3)
    assert {tick.frames.shape for tick in ticks} == {(2, 64, 64, 3)}


def test_ticks_come_at_the_rate_of_the_world(session):
    fake = FakeTime()
    ticks = play(lambda: session, Holding(), 10, make_clock=fake.clock)
    sampled = [tick.timing.sampled for tick in ticks[1:]]
    assert np.diff(sampled) == pytest.approx(1 / 17.5)


def test_slow_motion_and_its_end(session):
    fake = FakeTime()

    def then(loop, tick):
        if tick.number == 4:
            loop.change_speed(0.5)
        if tick.number == 8:
            loop.change_speed(100)

    ticks = play(lambda: session, Holding(), 12, then=then, make_clock=fake.clock)
    intervals = np.diff([tick.timing.sampled for tick in ticks[1:]]) * 17.5
    # A command counts after the wait that it comes in, so one tick later.
    assert intervals == pytest.approx([1, 1, 1, 1, 2, 2, 2, 2, 0.5, 0.5, 0.5], abs=1e-6)


def test_a_restart_begins_the_same_dream_again_and_another_seed_another(session):
    def then(loop, tick):
        if len(seen) == 5:
            loop.restart()
        if len(seen) == 10:
            loop.restart(seed=99)

    seen: list[Tick] = []
    play(lambda: session, Holding(RIGHT), 12, then=lambda loop, tick: (seen.append(tick), then(loop, tick)))
    begins = [i for i, tick in enumerate(seen) if tick.action is None]
    assert begins == [0, 5, 10]
    assert [seen[i].seed for i in begins] == [3, 3, 99]
    first, second, third = (np.stack([tick.frames for tick in seen[i : i + 5]]) for i in begins)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_another_scene_takes_over_with_the_steps_that_were_chosen(tiny_world, session):
    other = Session(tiny_world, make_tiny_context(seed=5), seed=8)

    def then(loop, tick):
        if tick.number == 2 and tick.seed == 3:
            loop.change_steps(1)
            loop.switch(lambda: other)

    ticks = play(lambda: session, Holding(), 4, then=then)
    assert [(tick.seed, tick.number, tick.steps) for tick in ticks] == [
        (3, 0, 2), (3, 1, 2), (3, 2, 2), (8, 0, 3), (8, 1, 3), (8, 2, 3),
    ]  # fmt: skip


def test_a_scene_that_cannot_be_opened_leaves_the_session_as_it_was(session):
    complaints: list[str] = []

    def broken():
        raise WorldError("the scene is damaged; make it again")

    ticks = play(
        lambda: session,
        Holding(),
        4,
        then=lambda loop, tick: loop.switch(broken) if tick.number == 2 else None,
        complain=complaints.append,
    )
    assert complaints == ["the scene is damaged; make it again"]
    assert [tick.number for tick in ticks] == [0, 1, 2, 3, 4]


def test_steps_that_no_world_has_are_refused_and_the_session_goes_on(session):
    complaints: list[str] = []
    ticks = play(
        lambda: session,
        Holding(),
        4,
        then=lambda loop, tick: loop.change_steps(-2) if tick.number == 2 else None,
        complain=complaints.append,
    )
    assert len(complaints) == 1 and "1 to 8 denoise steps, not 0" in complaints[0]
    assert [tick.steps for tick in ticks] == [2] * 5


def test_a_tuning_counts_from_the_next_tick_on(session):
    def then(loop, tick):
        if tick.number == 2:
            loop.tune(Tuning(steps=3, speed=0.5))

    ticks = play(lambda: session, Holding(), 5, then=then)
    assert [tick.steps for tick in ticks] == [2, 2, 2, 3, 3, 3]
    assert np.diff([tick.timing.sampled for tick in ticks[3:]]) == pytest.approx(2 / 17.5)


def test_an_error_in_the_thread_surfaces_as_one_sentence(session):
    class Breaking(Holding):
        def sample(self):
            if session.tick == 2:
                raise RuntimeError("CUDA error: device lost\nwith a second line")
            return Action()

    with pytest.raises(LoopError) as raised:
        play(lambda: session, Breaking(), 10)
    assert str(raised.value) == "the session broke off after tick 2: RuntimeError: CUDA error: device lost"
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_what_prevents_the_start_is_raised_as_it_is():
    def broken():
        raise WorldError("generator.safetensors is truncated; get it again")

    with pytest.raises(PlayheadError, match=r"^generator\.safetensors is truncated; get it again$"):
        play(broken, Holding(), 1)


def test_a_subscriber_that_breaks_is_no_silent_end(session):
    def then(loop, tick):
        raise KeyError("gone")

    with pytest.raises(LoopError, match="KeyError"):
        play(lambda: session, Holding(), 3, then=then)


def test_the_last_tick_is_committed_when_the_loop_ends(tiny_world, tiny_context, session):
    play(lambda: session, Holding(RIGHT), 5)
    by_hand = Session(tiny_world, tiny_context, seed=3)
    for _ in range(5):
        by_hand.step(RIGHT)
    assert np.array_equal(session.step(RIGHT), by_hand.step(RIGHT))


def test_commands_that_keep_coming_hold_up_no_tick(tiny_world):
    def again(loop: Loop) -> None:
        if loop.alive:
            loop.ask(lambda _: again(loop))

    ticks = play(lambda: Session(tiny_world, make_tiny_context(), 0), Holding(), 5,
                 then=lambda loop, tick: again(loop))  # fmt: skip
    assert [tick.number for tick in ticks] == [0, 1, 2, 3, 4, 5]
