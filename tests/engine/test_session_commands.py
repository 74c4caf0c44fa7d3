"""What a session obeys beside its world: the way back to the start, and prompts."""

import msgspec
import numpy as np
import pytest

from playhead.engine import session as session_module
from playhead.engine.session import Session
from playhead.world.action import Action, ActionSpace
from playhead.world.context import Context
from playhead.world.errors import ActionError
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world
from tests.engine.walks import TURN, WALK, play, refused


def test_a_start_is_shared_where_neither_seed_nor_anchor_is_in_it(tiny_world: World) -> None:
    assert Session.share_start(tiny_world)
    assert not Session.share_start(make_tiny_world(one_pass=True))
    assert not Session.share_start(make_commanded_world())


def make_commanded_world() -> World:
    """The tiny world with commands that the session obeys; its prompts are only counted."""
    world, commands = make_tiny_world(), ("re_anchor", "prompt_1", "prompt_2", "prompt_3")
    space = ActionSpace((*BUTTONS, *commands), commands=commands)
    world.config = msgspec.structs.replace(world.config, action=space)
    return world


def prompted(context: Context, count: int) -> Context:
    return Context(context.frames, context.actions, prompts=(np.zeros((1, 1), np.float32),) * count)


@pytest.fixture
def commanded(tiny_context: Context) -> Session:
    return Session(make_commanded_world(), prompted(tiny_context, 2), 5)


def test_a_return_to_the_start_is_the_start_but_for_the_tick(commanded: Session) -> None:
    play(commanded, WALK, 5)
    twin = commanded.fork()
    fresh = Session(commanded.world, commanded.context, 5)
    fresh.tick = 5
    frames = fresh.step(WALK)
    back = Action(WALK.buttons | {"re_anchor"})
    for session in (commanded, twin):
        assert np.array_equal(session.step(back), frames)
        assert session.tick == 6
    assert np.array_equal(play(commanded, TURN, 3), play(fresh, TURN, 3))


def test_the_start_that_is_gone_back_to_is_the_newest(commanded: Session, tiny_context: Context) -> None:
    other = prompted(make_tiny_context(seed=1), 2)
    commanded.enter(other, 7)
    play(commanded, WALK, 4)
    fresh = Session(commanded.world, other, 7)
    fresh.tick = 4
    assert np.array_equal(commanded.step(Action(frozenset({"re_anchor"}))), fresh.step(Action()))


def test_a_session_that_never_began_has_no_start_to_go_back_to(commanded: Session) -> None:
    twin = Session.unstarted(commanded.world, commanded.context)
    twin.restore(commanded.snapshot())
    back = Action(frozenset({"re_anchor"}))
    assert np.array_equal(twin.step(back), commanded.step(Action()))


def test_prompts_are_switched_in_their_order_and_after_a_return(
    commanded: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(
        session_module, "switch_prompt", lambda _, state, number: done.append((state, number))
    )
    state = commanded._state
    monkeypatch.setattr(state, "load_state", lambda kept: done.append("back"))
    commanded.step(WALK)
    assert not done
    commanded.step(Action(frozenset({"prompt_2", "re_anchor", "prompt_1"})))
    assert done == ["back", (state, 0), (state, 1)]


@pytest.mark.parametrize(("count", "has"), [(0, "no prompts"), (1, "1 prompt"), (2, "2 prompts")])
def test_a_prompt_is_played_where_the_context_has_it(tiny_context: Context, count: int, has: str) -> None:
    session = Session(make_commanded_world(), prompted(tiny_context, count), 5)
    session.check(Action(frozenset({"forward", "re_anchor"})))
    for number in range(1, 4):
        action = Action(frozenset({"re_anchor", f"prompt_{number}"}))
        if number <= count:
            session.check(action)
        else:
            with refused(ActionError, f"this scene has {has}, so there is no `prompt_{number}`"):
                session.check(action)
    with pytest.raises(ActionError, match="no button or axis `jump`"):
        session.check(Action(frozenset({"jump"})))
