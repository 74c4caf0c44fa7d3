"""A session whose steps a crew plays: those that its own loop plays, and the loop goes on after them."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from playhead.engine.crew import Crew
from playhead.engine.loop import Loop, LoopError
from playhead.engine.session import Session
from playhead.engine.tick import SingleStepper, Tick
from playhead.engine.tuning import Tuning
from playhead.world.action import Action
from playhead.world.context import Context
from playhead.world.errors import PlayheadError
from playhead.world.world import World
from tests.conftest import BUTTONS
from tests.engine.loops import NOTHING, RIGHT, Holding, wait_until

Begin = Callable[[SingleStepper], Loop]
CYCLE = [Action(frozenset({button})) for button in BUTTONS]


class CrewStepper(SingleStepper):
    """Lends sessions to a crew. `passing` is called before each of its passes."""

    def __init__(self, passing: Callable[[], None] = lambda: None) -> None:
        self.passes = 0
        self._passing = passing
        self.crew = Crew(self._step_all)

    def _step_all(
        self, sessions: Sequence[Session], actions: Sequence[Action], meanwhile: Callable[[], None]
    ) -> list[np.ndarray]:
        self.passes += 1
        self._passing()
        frames = [session.step(action) for session, action in zip(sessions, actions, strict=True)]
        meanwhile()  # another thread's pass may be over by then
        return frames


def can_lend(loop: Loop) -> bool:
    """Whether it has opened its session and has nothing left to do."""
    if able := loop._inbox.lend():
        loop._inbox.turn.release()
    return able


@pytest.fixture
def begin(tiny_world: World, tiny_context: Context) -> Iterator[Begin]:
    """Starts a loop in lockstep."""
    begun: list[Loop] = []

    def start(stepper: SingleStepper) -> Loop:
        loop = Loop(lambda: Session(tiny_world, tiny_context, 4), Holding(), lockstep=True, stepper=stepper)
        begun.append(loop)
        loop.start()
        wait_until(lambda: can_lend(loop))
        return loop

    yield start
    for loop in begun:
        loop.stop()
        loop.wait(30)


def steps(loop: Loop, actions: Sequence[Action]) -> list[tuple[Tick, float]]:
    told: list[tuple[Tick, float]] = []
    loop.step(actions, lambda tick, seconds: told.append((tick, seconds)), "bridge").result(30)
    return told


def test_lent_steps_are_those_that_the_loop_plays(begin: Begin) -> None:
    stepper = CrewStepper()
    own, lent = begin(SingleStepper()), begin(stepper)
    seen: list[Tick] = []
    lent.subscribe(seen.append)
    for actions in (CYCLE, [RIGHT, NOTHING]):
        expected, told = steps(own, actions), steps(lent, actions)
        assert [tick.number for tick, _ in told] == [tick.number for tick, _ in expected]
        for (tick, _), (other, _) in zip(told, expected, strict=True):
            assert (tick.action, tick.steps, tick.source) == (other.action, other.steps, "bridge")
            assert np.array_equal(tick.frames, other.frames)
        seconds = [since for _, since in told]
        assert seconds[0] > 0 and seconds == sorted(seconds)
        sampled = [moment for tick, _ in told for moment in (tick.timing.sampled, tick.timing.ready)]
        assert sampled == sorted(sampled)
    assert stepper.passes == len(seen) == len(CYCLE) + 2


@pytest.mark.parametrize("at_once", [False, True])
def test_what_a_pass_played_is_taken_in_while_the_next_one_is_under_way(
    at_once: bool, tiny_world: World, tiny_context: Context
) -> None:
    """But where the loop counts its ticks: it may end after any of them."""
    order: list[str | int] = []
    loop = Loop(
        lambda: Session(tiny_world, tiny_context, 4),
        Holding(),
        lockstep=True,
        stepper=CrewStepper(lambda: order.append("pass")),
        last=9 if at_once else None,
    )
    loop.subscribe(lambda tick: order.append(tick.number))
    loop.start()
    wait_until(lambda: can_lend(loop))
    told = steps(loop, CYCLE[:3])
    assert [tick.number for tick, _ in told] == [1, 2, 3]
    late = [0, "pass", "pass", 1, "pass", 2, 3]
    assert order == ([0, "pass", 1, "pass", 2, "pass", 3] if at_once else late)
    loop.stop()
    assert loop.wait(30)


def test_a_tick_that_cannot_be_taken_in_is_told_and_the_session_goes_on(begin: Begin) -> None:
    """After the one that was under way by then."""
    stepper = CrewStepper()
    loop, other = begin(stepper), begin(stepper)

    def receive(tick: Tick) -> None:
        if tick.number == 2:
            raise ValueError("no room")

    seen: list[int] = []
    loop.subscribe(receive)
    loop.subscribe(lambda tick: seen.append(tick.number))
    answer = loop.step(CYCLE, lambda tick, seconds: None, "bridge")
    assert len(steps(other, CYCLE)) == len(CYCLE)
    with pytest.raises(ValueError, match="no room"):
        answer.result(30)
    assert [tick.number for tick, _ in steps(loop, [RIGHT, NOTHING])] == [4, 5]
    assert seen == [1, 3, 4, 5]


def test_steps_whose_answer_nobody_wants_any_more_are_given_back(begin: Begin) -> None:
    passing, let_pass = threading.Event(), threading.Event()
    stepper = CrewStepper(lambda: (passing.set(), let_pass.wait(30)))
    loop, other = begin(stepper), begin(stepper)
    answer = loop.step([RIGHT], lambda tick, seconds: None, "bridge")
    assert passing.wait(30) and answer.cancel()
    let_pass.set()
    wait_until(lambda: can_lend(loop))
    assert len(steps(other, CYCLE)) == len(CYCLE) and len(steps(loop, [NOTHING])) == 1


def test_a_loop_that_is_stopped_meanwhile_says_so_after_the_tick_under_way(
    begin: Begin,
) -> None:
    stepper = CrewStepper(lambda: loop.stop() if stepper.passes == 2 else None)
    loop = begin(stepper)
    told: list[Tick] = []
    answer = loop.step(CYCLE, lambda tick, seconds: told.append(tick), "bridge")
    with pytest.raises(LoopError, match="the session ended"):
        answer.result(30)
    assert loop.wait(30) and len(told) == stepper.passes == 2


def test_an_action_that_the_world_has_not_plays_nothing_and_the_loop_goes_on(
    begin: Begin,
) -> None:
    stepper = CrewStepper()
    loop = begin(stepper)
    answer = loop.step([RIGHT, Action(frozenset({"fly"}))], lambda tick, seconds: None, "bridge")
    with pytest.raises(PlayheadError, match="fly"):
        answer.result(30)
    assert not stepper.passes
    assert [tick.number for tick, _ in steps(loop, [RIGHT])] == [1]


def test_steps_asked_for_while_something_else_is_under_way_are_lent_after_it(begin: Begin) -> None:
    """Played by the loop itself they would have passes of their own, beside those of all others."""
    stepper, let_go, order = CrewStepper(lambda: order.append("pass")), threading.Event(), []
    loop = begin(stepper)

    def hold(session: Session) -> int:
        let_go.wait(30)
        order.append("asked before")
        return session.tick

    before = loop.ask(hold)
    told: list[Tick] = []
    answer = loop.step([RIGHT, NOTHING], lambda tick, seconds: told.append(tick), "bridge")
    after = loop.ask(lambda session: session.tick)
    assert not answer.done()
    let_go.set()
    answer.result(30)
    assert (before.result(30), after.result(30)) == (0, 2)
    assert order == ["asked before", "pass", "pass"] and [tick.number for tick in told] == [1, 2]
    assert can_lend(loop)


def test_a_loop_that_is_to_go_on_by_itself_by_then_plays_them_itself(begin: Begin) -> None:
    stepper, let_go = CrewStepper(), threading.Event()
    loop = begin(stepper)
    loop.ask(lambda session: let_go.wait(30))
    loop.tune(Tuning(lockstep=False, paused=True))
    answer = loop.step([RIGHT], lambda tick, seconds: None, "bridge")
    wrong = loop.step([Action(frozenset({"fly"}))], lambda tick, seconds: None, "bridge")
    let_go.set()
    answer.result(30)
    with pytest.raises(PlayheadError, match="fly"):
        wrong.result(30)
    assert not stepper.passes and loop.ask(lambda session: session.tick).result(30) == 1


def test_steps_that_wait_for_a_loop_that_ends_are_refused(begin: Begin) -> None:
    stepper, let_go = CrewStepper(), threading.Event()
    loop = begin(stepper)
    loop.ask(lambda session: let_go.wait(30))
    answer = loop.step([RIGHT], lambda tick, seconds: None, "bridge")
    loop.stop()
    let_go.set()
    with pytest.raises(LoopError, match="the session ended"):
        answer.result(30)
    assert loop.wait(30) and not stepper.passes


def test_a_loop_does_not_end_while_its_session_is_lent(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped right after it handed its session on, it waits for the tick under way."""
    passing, let_pass, let_go, stopped = (threading.Event() for _ in range(4))
    loop = begin(CrewStepper(lambda: (passing.set(), let_pass.wait(30))))
    publish = loop._publish

    def late() -> None:
        """What its thread may do then comes after the stop."""
        if threading.current_thread().name == "loop" and passing.wait(0.3):
            stopped.wait(30)
        publish()

    monkeypatch.setattr(loop, "_publish", late)
    seen: list[Tick] = []
    loop.subscribe(seen.append)
    loop.ask(lambda session: let_go.wait(30))
    answer = loop.step([RIGHT], lambda tick, seconds: None, "bridge")
    let_go.set()
    assert passing.wait(30)
    loop.stop()
    stopped.set()
    assert not loop.wait(0.2), "it ended while its session was being stepped"
    let_pass.set()
    answer.result(30)
    assert loop.wait(30) and [tick.number for tick in seen] == [1]


@pytest.mark.parametrize("queued", [False, True])
def test_where_no_thread_can_be_had_who_asked_is_told_and_others_go_on(
    queued: bool, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, let_go = begin(CrewStepper()), threading.Event()
    start = threading.Thread.start

    def cannot(thread: threading.Thread) -> None:
        if thread.name == "crew":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", cannot)
    if queued:
        loop.ask(lambda session: let_go.wait(30))
    with pytest.raises(RuntimeError, match="can't start"):
        answer = loop.step([RIGHT], lambda tick, seconds: None, "bridge")
        let_go.set()
        answer.result(30)
    monkeypatch.setattr(threading.Thread, "start", start)
    wait_until(lambda: can_lend(loop))
    assert [tick.number for tick, _ in steps(loop, [RIGHT])] == [1]


def test_who_cannot_be_told_of_a_tick_keeps_no_others_from_theirs(begin: Begin) -> None:
    stepper = CrewStepper()
    loop, other = begin(stepper), begin(stepper)

    def broken(tick: Tick, seconds: float) -> None:
        raise ValueError("nobody there")

    with pytest.raises(ValueError, match="nobody there"):
        loop.step([RIGHT], broken, "bridge").result(30)
    assert len(steps(other, [RIGHT])) == len(steps(loop, [NOTHING])) == 1


def test_the_thread_of_a_crew_ends_with_it(begin: Begin) -> None:
    stepper = CrewStepper()
    loop = begin(stepper)
    steps(loop, [RIGHT])
    thread = stepper.crew._thread
    assert thread is not None and thread.is_alive()
    crew = weakref.ref(stepper.crew)
    loop.stop()
    assert loop.wait(30)
    stepper.crew = loop._stepper = None
    gc.collect()
    thread.join(30)
    assert crew() is None and not thread.is_alive()
