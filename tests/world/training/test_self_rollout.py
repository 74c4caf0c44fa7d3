"""Self-rollout promises: it is play itself, and its gradients stop where they should."""

import pytest
import torch

from playhead.world.attention import attention
from playhead.world.experts import Experts
from playhead.world.noise import noise
from playhead.world.past import PAST as BEFORE_ALL
from playhead.world.past import prefill
from playhead.world.sampler import Schedule
from playhead.world.training.self_rollout import RolloutReplay, SelfRollout, make_player
from tests.world.training.settings import BATCH, PAST, TICKS, make_setting

SEEDS = (5, 6)
MIXED = torch.randint(1, 3, (BATCH, TICKS), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def setting():
    """One of two steps a tick."""
    return make_setting()


@pytest.fixture(scope="module", params=[(1000.0,), (1000.0, 500.0)], ids=["one step", "two steps"])
def any_setting(request):
    return make_setting(request.param)


def alone(world, generator) -> Experts:
    """One generator for all steps of `world`."""
    sampling = world.config.sampling
    return Experts([generator], Schedule.from_steps(sampling.steps, sampling.shift))


def rollout_of(world, generator, batch=BATCH) -> SelfRollout:
    sampling = world.config.sampling
    schedule = Schedule.from_steps(sampling.steps, sampling.shift)
    player = make_player(alone(world, generator), torch.float32)
    return SelfRollout(player, sampling, schedule, batch, world.config.latent_shape)


def draws(world, seeds=SEEDS, first=0, ticks=TICKS) -> torch.Tensor:
    """The noise that play would draw, `(S, steps, B, 1, C, h, w)`."""
    shape, steps = (1, *world.config.latent_shape), len(world.config.sampling.steps)
    drawn = [
        noise(seed, tick, step, shape)
        for tick in range(first, first + ticks)
        for step in range(steps)
        for seed in seeds
    ]
    return torch.stack(drawn).unflatten(0, (ticks, steps, len(seeds)))


def draws_before(world, seeds=SEEDS) -> torch.Tensor:
    """The noise that a known past is taken in with in play, `(PAST, B, 1, C, h, w)`."""
    return draws(world, seeds, BEFORE_ALL - PAST, PAST)[:, -1]


def mixed(world) -> torch.Tensor:
    """After which step sessions leave each tick: now the first, now the last."""
    return MIXED.clamp_max(len(world.config.sampling.steps))


def begin(rollout, world, past, actions, seeds=SEEDS) -> None:
    """Starts sessions anew at their past, as play does."""
    rollout.begin(past, actions[:, :PAST], draws_before(world, seeds))


def test_a_rollout_in_training_is_the_rollout_of_play_bit_for_bit(any_setting):
    world, generator, past, actions = any_setting
    state = world.new_state(BATCH)
    prefill(world, state, past, actions[:, :PAST], SEEDS)
    played = []
    for tick in range(TICKS):
        world.denoise(state, actions[:, PAST + tick][:, None], SEEDS, tick)
        played.append(state.latent.clone())
        world.commit(state)
    rollout, steps = rollout_of(world, generator), len(world.config.sampling.steps)
    begin(rollout, world, past, actions)
    trained = rollout.advance(actions[:, PAST:], draws(world), torch.full((BATCH, TICKS), steps)).latents
    assert torch.equal(torch.cat(played, 1), trained)


def test_a_rollout_goes_on_from_call_to_call_and_from_its_state(any_setting):
    world, generator, past, actions = any_setting
    whole, parts, restored = (rollout_of(world, generator) for _ in range(3))
    for rollout in (whole, parts):
        begin(rollout, world, past, actions)
    exits = mixed(world)
    expected = whole.advance(actions[:, PAST:], draws(world), exits).latents
    found = []
    for first, count in ((0, 5), (5, 8), (13, TICKS - 13)):
        if first:
            restored.load_state(parts.state())
            parts, restored = restored, parts
        acts = actions[:, PAST + first : PAST + first + count]
        stretch = parts.advance(acts, draws(world, SEEDS, first, count), exits[:, first : first + count])
        found.append(stretch.latents)
    assert torch.equal(torch.cat(found, 1), expected)


def test_every_session_leaves_after_a_step_of_its_own(setting):
    """A session's rollout does not depend on when the session beside it leaves."""
    world, generator, past, actions = setting
    rollout = rollout_of(world, generator)
    begin(rollout, world, past, actions)
    together = rollout.advance(actions[:, PAST:], draws(world), MIXED).latents
    for i, seed in enumerate(SEEDS):
        one, alone = slice(i, i + 1), rollout_of(world, generator, 1)
        begin(alone, world, past[one], actions[one], (seed,))
        found = alone.advance(actions[one, PAST:], draws(world, (seed,)), MIXED[one]).latents
        torch.testing.assert_close(found, together[one], atol=1e-4, rtol=1e-4)


def replayed(world, generator, past, actions, length):
    """A rollout of which all but the last `length` ticks went unwatched; its stretch and its replay."""
    rollout, exits = rollout_of(world, generator), mixed(world)
    begin(rollout, world, past, actions)
    before = TICKS - length
    if before:
        rollout.advance(actions[:, PAST : PAST + before], draws(world, SEEDS, 0, before), exits[:, :before])
    replay = RolloutReplay(rollout.cache, length)
    stretch = rollout.advance(
        actions[:, PAST + before :], draws(world, SEEDS, before, length), exits[:, before:], replay
    )
    return stretch, replay


@pytest.mark.parametrize("length", [2, 4, 19, TICKS])
def test_a_replay_finds_the_latents_that_were_dreamed(any_setting, length):
    """Of the last so many ticks: within a window, longer than one, longer than the far memory, all."""
    world, generator, past, actions = any_setting
    stretch, replay = replayed(world, generator, past, actions, length)
    torch.testing.assert_close(
        replay.latents(alone(world, generator), stretch).detach(), stretch.estimates, atol=2e-5, rtol=1e-4
    )


def beside(cache):
    """Attention of a block of one frame to itself and to what a cache holds, which nothing is written to."""

    def attend(layer, q, k, v):
        n, (slot,) = cache.tokens, cache.slots
        end = (cache.visible + (cache.distant if layer in cache.far.layers else 0)) * n
        parts = (
            torch.cat([held[layer, :, :, : slot * n], held[layer, :, :, (slot + 1) * n : end], new], 2)
            for held, new in ((cache.k, k), (cache.v, v))
        )
        return attention(q, *parts)

    return attend


def test_a_gradient_passes_through_the_exit_step_alone(setting):
    """That of a tick's latent is the one of its last pass, all that came before being constants."""
    world, generator, past, actions = setting
    stretch, replay = replayed(world, generator, past, actions, 3)
    assert not stretch.entries.requires_grad and not replay.k.requires_grad and not replay.v.requires_grad
    generator.zero_grad()
    replay.latents(alone(world, generator), stretch)[:, -1].sum().backward()
    found = {n: p.grad.clone() for n, p in generator.named_parameters() if p.grad is not None}

    rollout = rollout_of(world, generator)  # the same, tick by tick, its last tick by hand
    begin(rollout, world, past, actions)
    last = TICKS - 1
    rollout.advance(actions[:, PAST : PAST + last], draws(world, SEEDS, 0, last), MIXED[:, :last])
    rollout.cache.begin(1)
    cos_sin = generator.rope_table([rollout.cache.length], *past.shape[-2:])
    sigmas = stretch.sigmas[:, -1:]
    entry = stretch.entries[:, -1:]
    flow = generator(entry, 1000 * sigmas, cos_sin, beside(rollout.cache), actions[:, -1:])
    generator.zero_grad()
    (entry[:, :, : flow.shape[2]] - sigmas[:, :, None, None, None] * flow).sum().backward()
    for name, parameter in generator.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-3)
