"""Public worlds: their checkpoints are recognised and load unchanged, and every family plays exactly."""

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from playhead.engine.rollout import rolling
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.binding import switch_prompt
from playhead.world.errors import ActionError, WorldError
from playhead.world.importing import (
    generator_listing,
    infer,
)
from playhead.world.lighttae import LightTAE
from playhead.world.past import enter
from playhead.world.public import PUBLIC
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World

LISTINGS = Path(__file__).parent / "listings"
FAMILIES = ("self-forcing", "sgf", "sgf-plus", "longlive", "causal-forcing-2step", "matrix-game-2",
            "matrix-game-2-gta", "matrix-game-2-templerun", "forgewm-1")  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def make_world(name: str, dtype: torch.dtype = torch.float32) -> World:
    config = random_world(name, small=True)
    save_world_config(config)
    world = World.load(config.name, "cpu", dtype)
    world.side_by_side = False
    return world


def play(session: Session, actions: list[Action]) -> list[np.ndarray]:
    return [session.step(action) for action in actions]


def wander(world: World, ticks: int) -> list[Action]:
    """Every button and both ends of every axis, prompts among them."""
    space, draw = world.config.action, np.random.default_rng(3)
    names = [b for b in space.buttons if b in {*space.seen, "prompt_1", "prompt_2"}]
    return [
        Action(
            frozenset(draw.choice(names, 2).tolist()),
            {axis: float(draw.uniform(-1, 1)) for axis in space.axes},
        )
        for _ in range(ticks)
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_keys_and_shapes_are_those_of_the_reference(name: str) -> None:
    """Complete listings, instantiated from the reference classes; no weight is allocated."""
    config = PUBLIC[name].config.generator
    file = {"matrix-game-2": "universal", "matrix-game-2-gta": "gta_drive"}.get(name, "text-to-video")
    file = "templerun" if name.endswith("templerun") else "universal" if "forgewm" in name else file
    wanted = json.loads((LISTINGS / f"{file}.json").read_text("utf-8"))
    found = generator_listing(config)
    assert found == {key: tuple(shape) for key, shape in wanted.items()}
    totals = {"text-to-video": (825, 1_418_996_800), "universal": (1114, 1_619_242_304)}
    totals |= {"templerun": (964, 1_508_715_584), "gta_drive": (1114, 1_619_238_464)}
    assert (len(found), sum(map(prod, found.values()))) == totals[file]
    assert infer(found) == config
    PUBLIC[name].config.check()


def test_the_autoencoder_has_the_keys_of_the_public_file() -> None:
    with torch.device("meta"):
        tensors = LightTAE(PUBLIC["self-forcing"].config.autoencoder).state_dict()
    assert (len(tensors), sum(t.numel() for t in tensors.values())) == (128, 11_315_539)


@pytest.mark.parametrize("name", FAMILIES)
def test_snapshot_restore_and_fork_are_exact(name: str) -> None:
    world = make_world(name)
    session = Session(world, random_context(world.config), 5)
    actions = wander(world, 12)
    play(session, actions[:6])
    kept = session.snapshot()
    twin = session.fork()
    on = play(session, actions[6:])
    assert all(map(np.array_equal, on, play(twin, actions[6:])))
    session.restore(kept)
    assert all(map(np.array_equal, on, play(session, actions[6:])))


@pytest.mark.parametrize("name", ["matrix-game-2", "matrix-game-2-gta", "matrix-game-2-templerun"])
def test_what_is_held_is_seen_and_goes_on_into_the_next_block(name: str) -> None:
    world = make_world(name)
    frames = []
    for first in (Action(), Action(frozenset(world.config.action.seen[1:2]))):
        session = Session(world, random_context(world.config), 1)
        frames.append(play(session, [Action(), first, Action()]))
    assert np.array_equal(frames[0][0], frames[1][0])
    assert not np.array_equal(frames[0][1], frames[1][1])
    assert not np.array_equal(frames[0][2], frames[1][2])


def test_a_new_key_ramps_in_over_its_block_as_in_the_reference() -> None:
    world = make_world("matrix-game-2")
    state = world.new_state()
    enter(world, state, random_context(world.config), [0])
    w = world.config.action.tensor(Action(frozenset({"forward"}))).expand(1, 3, -1)
    for tick, held in enumerate((torch.zeros_like(w), w, w)):
        world.denoise(state, held, [0], tick)
        assert state.memory is not None
        rows = state.memory.rows[0, :, 0].unfold(0, 12, 4).sum(-1).tolist()
        assert rows == [[0, 0, 0], [3, 7, 11], [12, 12, 12]][tick]
        world.commit(state)


def test_the_mouse_is_felt_and_scaled() -> None:
    space = PUBLIC["matrix-game-2"].config.action
    assert space.condition(Action(frozenset({"forward"}), {"yaw": -1.0})) == [1, 0, 0, 0, 0, -0.1]
    run = PUBLIC["matrix-game-2-templerun"].config.action
    assert run.condition(Action()) == [1, 0, 0, 0, 0, 0, 0]
    assert run.condition(Action(frozenset({"slide", "jump"}))) == [0, 1, 0, 0, 0, 0, 0]
    action = Action(frozenset({"back"}), {"pitch": 0.5})
    assert space.decode(space.encode(action)) == action


@pytest.mark.parametrize("how", ["recache", "flush"])
@pytest.mark.parametrize("name", ["self-forcing", "sgf", "sgf-plus", "longlive"])
def test_a_prompt_switch_shows_at_once_and_keeps_positions(name: str, how: str) -> None:
    world = make_world(name)
    context = random_context(world.config)
    states = [world.new_state() for _ in range(2)]
    action = world.config.action.tensor(Action()).expand(1, world.config.sampling.latents_per_tick, -1)
    for state in states:
        enter(world, state, context, [0])
        for tick in range(9):
            world.denoise(state, action, [0], tick)
            world.commit(state)
    length = states[0].cache.length
    switch_prompt(world, states[0], 1, how)
    assert states[0].cache.length == length
    for state in states:
        world.denoise(state, action, [0], 9)
    assert not torch.equal(states[0].latent, states[1].latent)
    sink = world.config.sampling.sink
    assert how == "recache" or states[0].cache.visible == sink + len(states[0].cache.slots)


def test_a_prompt_that_the_scene_lacks_is_refused_before_anything_is_played() -> None:
    world = make_world("self-forcing")
    session = Session(world, random_context(world.config), 0)
    actions = [Action(frozenset({f"prompt_{number}"})) for number in (1, 2, 3)]
    with pytest.raises(ActionError, match="2 prompts, so there is no `prompt_3`"):
        list(rolling(session, actions))
    assert session.tick == 0
    assert len(list(rolling(session, actions[:2]))) == 2


def test_a_recache_under_the_same_prompt_leaves_the_cache_as_it_was() -> None:
    """Committing the latents again gives the very keys that are there, while nothing has fallen out."""
    world = make_world("self-forcing")
    state = world.new_state()
    context = random_context(world.config)
    twice = type(context)(context.frames, context.actions, prompts=(context.prompts[0],) * 2)
    enter(world, state, twice, [0])
    action = torch.zeros(1, 3, 0)
    for tick in range(4):
        world.denoise(state, action, [0], tick)
        world.commit(state)
    before = state.cache.ordered(2)[0]
    switch_prompt(world, state, 1, "recache")
    assert torch.allclose(state.cache.ordered(2)[0], before, atol=1e-5)


def test_re_anchoring_returns_to_the_start_while_ticks_go_on() -> None:
    world = make_world("matrix-game-2")
    session = Session(world, random_context(world.config), 2)
    play(session, wander(world, 5))
    session.step(Action(frozenset({"re_anchor"})))
    session.finish()
    assert session.tick == 6
    assert session._state.cache.length == 3
    again = Session(world, random_context(world.config), 2)
    again.tick = 5
    assert np.array_equal(again.step(Action()), session.frames)


def test_a_picture_starts_a_frame_wise_world_and_not_one_of_blocks() -> None:
    world = make_world("causal-forcing-2step")
    context = random_context(world.config)
    latents = np.random.default_rng(0).standard_normal((1, *world.config.latent_shape)).astype(np.float32)
    start = type(context)(context.frames, context.actions, prompts=context.prompts, latents=latents)
    session = Session(world, start, 0)
    assert session.frames.shape == (1, 64, 96, 3)
    assert session.step(Action()).shape == (4, 64, 96, 3)
    chunks = make_world("self-forcing")
    with pytest.raises(WorldError, match="blocks of 3"):
        Session(chunks, start, 0)


def test_an_endless_world_passes_the_end_of_the_reference_table_with_flat_memory() -> None:
    """150 ticks here; `python -m tests.tools.long endless` plays 3,000 latents."""
    from tests.tools.long import endless

    endless("sgf", latents=150)


@pytest.mark.parametrize("name", ["sgf", "longlive", "matrix-game-2"])
def test_endless_equals_absolute_until_something_falls_out(name: str) -> None:
    import msgspec

    world = make_world(name)
    sampling = msgspec.structs.replace(world.config.sampling, positions="absolute")
    config = msgspec.structs.replace(world.config, sampling=sampling)
    absolute = make_world(name)
    absolute.config = config
    ticks = config.sampling.window // config.sampling.latents_per_tick
    runs = [play(Session(w, random_context(w.config), 0), wander(w, ticks)) for w in (world, absolute)]
    assert all(map(np.array_equal, *runs))


def test_a_scene_of_another_world_is_refused_in_a_sentence() -> None:
    world = make_world("matrix-game-2")
    with pytest.raises(WorldError, match="image features"):
        Session(world, random_context(random_world("self-forcing", small=True)), 0)
