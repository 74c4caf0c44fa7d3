"""The pace: when the world moves, how fast, and in how many steps, without a thread or a session."""

import pytest

from playhead.engine.auto_steps import LATE_AFTER
from playhead.engine.pace import Pace
from playhead.engine.tuning import Tuning
from playhead.world.action import Action
from playhead.world.errors import PlayheadError, WorldError
from tests.engine.fake_time import FakeTime

RATE, MOST = 10.0, 4
NOTHING, LEFT = Action(), Action(frozenset({"left"}))


class Steps:
    """What is played: in at most eight steps."""

    def __init__(self, steps: int = MOST) -> None:
        self._steps = steps

    @property
    def steps(self) -> int:
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        if not 1 <= steps <= 8:
            raise WorldError(f"not in {steps}")
        self._steps = steps


class Play:
    """A pace in a time of its own, and what is played at it: a tick takes `cost` seconds in any steps."""

    def __init__(self, steps: int = MOST, **options) -> None:
        self.fake, self.played = FakeTime(), Steps(steps)
        self.pace = Pace(make_clock=self.fake.clock, **options)
        self.pace.enter(self.played, RATE, MOST)

    def turns(self, count: int, cost: float = 0.0, action: Action = NOTHING) -> list[float]:
        """Goes on by so many turns. Returns when ticks were played."""
        times = []
        for _ in range(count):
            self.pace.wait()
            if self.pace.take_turn() and not self.pace.idles(action):
                times.append(self.fake.seconds)
                self.fake.seconds += cost
                self.pace.add(times[-1], self.fake.seconds, self.fake.seconds, None)
        return times

    def tune(self, **to) -> None:
        self.pace.tune(Tuning(**to))


def test_ticks_come_at_the_rate_and_at_the_speed():
    play = Play(speed=0.5)
    assert play.turns(3) == pytest.approx([0.0, 0.2, 0.4])
    play.tune(speed=2.0)
    assert play.turns(3) == pytest.approx([0.45, 0.5, 0.55])
    assert play.pace.stats(6, 1, ()).wanted_rate == 20


def test_a_speed_is_brought_into_range_but_none_is_begun_with_beyond_it():
    play = Play()
    for wanted, speed in ((100.0, 2.0), (0.0, 0.25), (0.7, 0.7)):
        play.tune(speed=wanted)
        assert play.pace.speed == play.pace.stats(0, 0, ()).speed == speed
    with pytest.raises(PlayheadError):
        Pace(speed=3.0)


def test_a_pause_is_no_time_that_is_made_up_for():
    play = Play()
    assert play.turns(2) == pytest.approx([0.0, 0.1])
    play.tune(paused=True)
    assert play.pace.halted and play.turns(5) == []
    play.fake.seconds = 7.0
    play.tune(paused=False)
    assert not play.pace.halted
    assert play.turns(3) == pytest.approx([7.0, 7.1, 7.2])


def test_single_steps_are_played_in_a_pause_one_each_and_at_once():
    play = Play()
    play.turns(2)
    play.pace.single_step()
    play.pace.single_step()
    assert play.pace.paused and not play.pace.halted
    assert len(play.turns(5)) == 2 and play.pace.halted
    play.pace.single_step()
    play.tune(paused=False)
    play.tune(paused=True)
    assert play.turns(5) == [], "whoever goes on meanwhile has no use for it"


def test_in_lockstep_nothing_is_played_by_itself_and_no_single_step_either():
    play = Play(lockstep=True)
    play.pace.single_step()
    assert play.turns(5) == [] and play.pace.halted
    play.tune(paused=False, lockstep=False)
    assert len(play.turns(5)) == 5
    play.pace.single_step()
    play.tune(lockstep=True)
    assert play.turns(5) == []


def test_a_pause_that_is_there_already_is_left_alone():
    play = Play()
    play.pace.single_step()
    play.tune(paused=True)
    assert len(play.turns(3)) == 1


def test_with_hold_the_world_waits_until_something_is_held():
    play = Play(hold=True)
    assert play.turns(3) == [] and play.pace.waiting
    assert play.turns(2, action=LEFT) == pytest.approx([0.3, 0.4]) and not play.pace.waiting
    assert play.turns(2, action=Action(axes={"look": 0.5})) == pytest.approx([0.5, 0.6])
    assert play.turns(1) == [] and play.pace.waiting
    play.tune(hold=False)
    assert not play.pace.waiting and len(play.turns(2)) == 2


def test_a_single_step_is_played_in_spite_of_hold():
    play = Play(hold=True)
    play.pace.single_step()
    assert len(play.turns(2)) == 1


def test_steps_that_cannot_be_are_refused_and_nothing_changes():
    play = Play(auto_steps=True)
    with pytest.raises(WorldError, match="not in 9"):
        play.tune(steps=9, speed=2.0, paused=True)
    assert (play.played.steps, play.pace.auto, play.pace.speed, play.pace.paused) == (MOST, True, 1.0, False)
    play.tune(steps=7)
    assert (play.played.steps, play.pace.auto) == (7, False)


def test_a_slow_machine_chooses_fewer_steps_only_where_it_may_and_while_the_world_moves():
    play = Play()
    play.turns(2 * LATE_AFTER, cost=0.3)
    assert play.played.steps == MOST
    play.tune(auto_steps=True)
    play.turns(LATE_AFTER, cost=0.3)
    assert play.played.steps == MOST - 1
    for _ in range(2 * LATE_AFTER):
        play.pace.single_step()
    play.turns(2 * LATE_AFTER, cost=0.3)
    assert play.played.steps == MOST - 1, "nobody waits for a tick in a pause"
    play.tune(auto_steps=False)
    assert play.played.steps == MOST, "the world's own are back"


def test_automatic_steps_that_are_chosen_already_go_on_as_they_are():
    play = Play(auto_steps=True)
    play.turns(LATE_AFTER, cost=0.3)
    play.tune(auto_steps=True)
    assert play.played.steps == MOST - 1


def test_a_key_that_is_older_than_the_last_rest_waited_for_no_tick():
    play = Play()
    play.fake.seconds = 5.0
    assert play.pace.key_event(4.9) == 4.9 and play.pace.key_event(None) is None
    play.pace.resync()
    assert play.pace.key_event(4.9) is None and play.pace.key_event(5.0) == 5.0


def test_it_tells_how_well_it_is_kept():
    play = Play()
    play.turns(20, cost=0.2)
    stats = play.pace.stats(20, 7, ("left",))
    assert (stats.tick, stats.seed, stats.held, stats.steps) == (20, 7, ("left",), MOST)
    assert stats.tick_p50 == pytest.approx(0.2) == play.pace.expected
    assert stats.rate == pytest.approx(5.0) and stats.slow and stats.missed == stats.counted == 20
    play.tune(lockstep=True)
    assert not play.pace.stats(20, 7, ()).slow, "a world that stands still is not slow"


def test_what_is_expected_is_a_tick_s_time_but_at_least_a_period():
    play = Play()
    assert play.pace.expected == pytest.approx(0.1)
    play.turns(3, cost=0.05)
    assert play.pace.expected == pytest.approx(0.1)


def test_another_session_is_entered_at_the_pace_that_was_chosen():
    play = Play(auto_steps=True)
    play.turns(LATE_AFTER, cost=0.3)
    play.tune(speed=2.0)
    other = Steps(2)
    play.pace.enter(other, 20.0, 6)
    stats = play.pace.stats(0, 0, ())
    assert (stats.steps, stats.auto, stats.wanted_rate, stats.counted) == (2, True, 40.0, 0)
    play.tune(auto_steps=False)
    assert (other.steps, play.played.steps) == (6, MOST - 1)
