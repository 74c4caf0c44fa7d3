"""Places promise: a world that knows its places by name is told where a session is."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from playhead.engine.session import Session
from playhead.engine.together import step_together
from playhead.scenes.scene import context_arrays, parse_context
from playhead.world.action import Action
from playhead.world.context import Context
from playhead.world.world import World
from tests.conftest import make_tiny_context, make_tiny_world

PLACES = ("hall", "yard", "cave")
AHEAD = Action(frozenset({"forward"}))


@pytest.fixture(scope="module")
def world() -> World:
    return make_tiny_world(places=PLACES)


def context(place: str) -> Context:
    return replace(make_tiny_context(), place=place)


def dream(world: World, place: str, ticks: int = 3) -> np.ndarray:
    session = Session(world, context(place), 5)
    return np.concatenate([session.step(AHEAD) for _ in range(ticks)])


def test_equal_pasts_and_keys_dream_on_differently_in_each_place(world: World) -> None:
    dreams = [dream(world, place).tobytes() for place in (*PLACES, "")]
    assert len(set(dreams)) == 4


def test_a_place_that_the_world_does_not_know_is_none(world: World) -> None:
    assert np.array_equal(dream(world, "elsewhere"), dream(world, ""))


def test_a_world_without_places_does_not_mind_where_a_scene_was_taken(tiny_world: World) -> None:
    assert np.array_equal(dream(tiny_world, "hall"), dream(tiny_world, ""))


def test_a_fork_and_a_return_stay_in_their_place(world: World) -> None:
    session = Session(world, context("yard"), 5)
    session.step(AHEAD)
    kept, twin = session.snapshot(), session.fork()
    ahead = [session.step(AHEAD) for _ in range(3)]
    assert all(np.array_equal(frames, twin.step(AHEAD)) for frames in ahead)
    session.enter(context("cave"), 5)
    session.step(AHEAD)
    session.enter(context("yard"), 5)
    session.restore(kept)
    assert all(np.array_equal(frames, session.step(AHEAD)) for frames in ahead)


def test_sessions_of_several_places_share_a_pass(world: World) -> None:
    together = [Session(world, context(place), 5) for place in PLACES]
    alone = [Session(world, context(place), 5) for place in PLACES]
    for _ in range(4):
        shared = step_together(together, [AHEAD] * 3)
        assert all(np.array_equal(a, b.step(AHEAD)) for a, b in zip(shared, alone, strict=True))


def test_what_is_held_does_not_touch_the_label(world: World) -> None:
    state = world.new_state(2)
    world.label(state, ["cave", "hall"])
    world.denoise(state, torch.ones(2, 1, 8), [1, 2], 0)
    assert state.action[:, 0, 8:].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert state.action[..., :8].all()


def test_a_context_keeps_its_place_through_its_file(tmp_path) -> None:
    path = tmp_path / "context.npz"
    np.savez(path, **context_arrays(context("cave")))
    with path.open("rb") as file:
        assert parse_context(file, str(path)).place == "cave"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"places": ("hall",)}, "`generator.labels` is 3, of 1 `places`"),
        ({"places": PLACES, "labels": 0}, "`generator.labels` is 0, of 3 `places`"),
    ],
)
def test_places_and_labels_have_to_agree(world: World, changes: dict, said: str) -> None:
    labels = changes.pop("labels", 3)
    generator = msgspec.structs.replace(world.config.generator, labels=labels)
    config = msgspec.structs.replace(world.config, generator=generator, **changes)
    with pytest.raises(ValueError, match=said):
        config.check()


def test_labels_need_buttons_to_stand_beside(world: World) -> None:
    with pytest.raises(ValueError, match="`labels` stand beside `buttons`"):
        msgspec.structs.replace(world.config.generator, buttons=0).check()
