"""Rest: a world in which nothing is held stays where it is as long as one likes, and goes on from there."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead.engine import together
from playhead.engine.session import Session
from playhead.engine.together import step_together
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.config import WorldConfig
from playhead.world.metrics import psnr
from playhead.world.rest import Rest
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_context, make_tiny_world

AFTER = 3
REST, BUSY = Action(), Action(frozenset(BUTTONS[:1]))


@pytest.fixture(scope="module", params=[False, True], ids=["pass", "one pass"])
def world(request: pytest.FixtureRequest) -> World:
    return make_tiny_world(rest_after=AFTER, one_pass=request.param)


def session(world: World, seed: int = 0) -> Session:
    return Session(world, make_tiny_context(seed=seed), seed)


def kept(player: Session) -> torch.Tensor:
    """What the last tick committed."""
    player.finish()
    assert player._state.rest is not None
    return player._state.rest.kept.clone()


@settings(max_examples=25, deadline=None)
@given(holds=st.lists(st.booleans(), min_size=1, max_size=16))
def test_after_some_ticks_of_rest_the_last_one_before_is_committed_over_and_over(world, holds):
    player, still, before = session(world), 0, None
    for hold in holds:
        player.step(BUSY if hold else REST)
        still = 0 if hold else still + 1
        found = kept(player)
        if still <= AFTER:
            assert torch.equal(found, player._state.latent)
        else:
            assert torch.equal(found, before) and not torch.equal(found, player._state.latent)
        before = found


def test_the_past_of_a_scene_is_committed_as_it_is_though_nothing_was_held_in_it(world):
    context = make_tiny_context(seed=0, length=AFTER + 3)
    context.actions[:] = 0
    player = Session(world, context, 0)
    assert torch.equal(kept(player), world.encode(context.frames)[None, -1:])


@pytest.mark.parametrize("ticks", [1, AFTER, AFTER + 1, AFTER + 9])
def test_a_snapshot_at_any_tick_of_rest_goes_on_bit_for_bit(world, ticks):
    player = session(world)
    player.step(BUSY)
    for _ in range(ticks):
        player.step(REST)
    twin = player.fork()
    for action in [*[REST] * 5, BUSY, *[REST] * 5]:
        assert np.array_equal(player.step(action), twin.step(action))


def test_known_latents_lead_to_the_same_future(world):
    player, again = session(world), session(world)
    for action in [BUSY, *[REST] * (AFTER + 4)]:
        player.step(action)
        again.retrace(action, player.latents)
    assert np.array_equal(player.step(BUSY), again.step(BUSY))


def test_in_company_some_rest_and_some_do_not(world):
    crowd = [session(world, n) for n in range(3)]
    alone = [player.fork() for player in crowd]
    for tick in range(AFTER + 8):
        held = [REST, BUSY, REST if tick % 7 else BUSY]
        frames = step_together(crowd, held)
        assert np.array_equal(frames, [s.step(a) for s, a in zip(alone, held, strict=True)])
    assert all(torch.equal(kept(a), kept(b)) for a, b in zip(crowd, alone, strict=True))


def test_a_shared_pass_commits_for_each_what_is_its_own(world):
    """The pass itself: `step_together` leaves it out where a processor would round it otherwise."""
    crowd, held = [session(world, n) for n in range(3)], [REST, BUSY, REST]
    for _ in range(AFTER + 2):
        for player, action in zip(crowd, held, strict=True):
            player.step(action)
    before = [kept(player) for player in crowd]
    together._joint_step(world, crowd, [REST, BUSY, BUSY])  # the third gets up
    after = [kept(player) for player in crowd]
    assert torch.equal(after[0], before[0]) and not torch.equal(after[0], crowd[0]._state.latent)
    assert all(torch.equal(after[n], crowd[n]._state.latent) for n in (1, 2))


def test_sessions_of_one_batch_rest_each_for_itself(world):
    draw = torch.Generator().manual_seed(0)
    state, shape = world.new_state(2), (2, 1, len(BUTTONS))
    past = torch.randn((2, 3, *world.config.latent_shape), generator=draw)
    world.prefill(state, past, torch.zeros(2, 3, len(BUTTONS)), range(2))
    held = torch.zeros(shape)
    held[1] = 1
    assert state.rest is not None
    for tick in range(AFTER + 2):
        world.denoise(state, held, [1, 2], tick)
        world.commit(state)
    assert not torch.equal(state.rest.kept[0], state.latent[0])
    assert torch.equal(state.rest.kept[1], state.latent[1])


def test_a_restart_forgets_that_it_rested(world):
    player = session(world)
    first = [player.step(REST) for _ in range(AFTER + 4)]
    player.reset()
    assert np.array_equal(first, [player.step(REST) for _ in range(AFTER + 4)])


def latents(*values: float) -> torch.Tensor:
    """A batch of latents, one session a value."""
    return torch.tensor(values).view(-1, 1, 1, 1, 1).expand(-1, 1, 2, 3, 3).clone()


def holding(*held: int) -> torch.Tensor:
    """`(B, F, inputs)`: one of the inputs is held, by those that hold something."""
    rows = torch.zeros(len(held), 1, 4)
    rows[:, 0, 2] = torch.tensor(held, dtype=torch.float32)
    return rows


def test_each_session_of_a_batch_rests_from_its_own_tick_on():
    rest = Rest(2, latents(0, 0))
    seen = []
    for tick, held in enumerate([(1, 0), (0, 0), (0, 0), (0, 0), (0, -1), (0, 0)], 1):
        rest.count(holding(*held))
        dreamed = latents(tick, 10 * tick)
        found = rest.committed(dreamed)
        assert torch.equal(found, rest.committed(dreamed)), "twice the same if asked twice"
        assert torch.equal(dreamed, latents(tick, 10 * tick))
        seen.append(found[:, 0, 0, 0, 0].tolist())
    assert seen == [[1, 10], [2, 20], [3, 20], [3, 20], [3, 50], [3, 60]]
    assert rest.ticks.tolist() == [5, 1]
    rest.restart()
    assert rest.ticks.tolist() == [0, 0]


def test_batches_side_by_side_are_a_copy_of_each():
    one, other = Rest(2, latents(0)), Rest(2, latents(0, 0))
    for held in ([0], [0], [0]):
        one.count(holding(*held))
        other.count(holding(1, 0))
    one.committed(latents(5))
    other.committed(latents(6, 7))
    joint = Rest.beside([one, other])
    assert (joint.after, joint.ticks.tolist()) == (2, [3, 0, 3])
    assert joint.ticks.dtype == torch.int64
    assert joint.kept[:, 0, 0, 0, 0].tolist() == [0, 6, 0]
    joint.count(holding(1, 1, 1))
    joint.committed(latents(8, 9, 10))
    assert (one.ticks.tolist(), other.ticks.tolist()) == ([3], [0, 3])
    assert one.kept[0, 0, 0, 0, 0] == 0 and other.kept[:, 0, 0, 0, 0].tolist() == [6, 0]


def test_a_state_of_rest_is_a_copy_and_goes_into_another():
    rest, other = Rest(2, latents(0)), Rest(2, latents(0))
    rest.count(holding(0))
    rest.committed(latents(3))
    state = rest.state()
    rest.count(holding(0))
    rest.committed(latents(4))
    assert (state["ticks"].tolist(), float(state["kept"].max())) == ([1], 3.0)
    other.load_state(state)
    other.count(holding(0))
    other.committed(latents(5))
    assert (state["ticks"].tolist(), float(state["kept"].max())) == ([1], 3.0)
    assert other.ticks.tolist() == [2] and torch.equal(other.kept, latents(5))


def test_rest_counts_on_the_device_of_the_latents_by_whole_numbers():
    rest = Rest(2, torch.zeros(3, 1, 2, 3, 3, dtype=torch.bfloat16, device="meta"))
    assert rest.ticks.device.type == rest.kept.device.type == "meta"
    assert (rest.ticks.dtype, rest.ticks.shape) == (torch.int64, (3,))
    assert (rest.kept.dtype, rest.kept.shape) == (torch.bfloat16, (3, 1, 2, 3, 3))
    assert not Rest(2, latents(1, 2)).kept.any()


def test_a_world_with_nothing_to_hold_cannot_rest(world):
    for other in (-1, "no buttons"):
        config = world.config
        if other == -1:
            config = msgspec.structs.replace(config, rest_after=-1)
        else:
            action = msgspec.structs.replace(config.action, buttons=())
            generator = msgspec.structs.replace(config.generator, buttons=0)
            config = msgspec.structs.replace(config, action=action, generator=generator)
        with pytest.raises(ValueError, match="rest_after"):
            config.check()


def test_the_shipped_world_keeps_the_picture_that_it_would_lose_without_rest():
    """For sixty ticks; and from its rest it walks on."""
    world = World.load("freedoom", "cpu")
    scene = load_scene("blue-windows")

    def idle(config: WorldConfig) -> tuple[Session, torch.Tensor, torch.Tensor]:
        world.config = config
        player = Session(world, scene.context, scene.seed, scene)
        for _ in range(8):
            seen = torch.from_numpy(player.step(REST))
        for _ in range(60):
            shown = torch.from_numpy(player.step(REST))
        return player, seen, shown

    config = world.config
    _, seen, shown = idle(msgspec.structs.replace(config, rest_after=0))
    assert psnr(shown, seen).max() < 24
    player, seen, shown = idle(config)
    assert psnr(shown, seen).min() > 33
    for _ in range(12):
        shown = torch.from_numpy(player.step(Action(frozenset({"forward"}))))
    assert psnr(shown, seen).max() < 20
