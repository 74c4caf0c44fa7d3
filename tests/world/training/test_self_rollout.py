"""Self-rollout promises: it is play itself, its gradients stop where they should, and students follow."""

import dataclasses

import pytest
import torch

from playhead.world.attention import attention
from playhead.world.checkpoint import save_weights
from playhead.world.experts import Experts
from playhead.world.generator import Generator
from playhead.world.noise import noise
from playhead.world.past import PAST as BEFORE_ALL
from playhead.world.past import prefill
from playhead.world.sampler import Schedule
from playhead.world.training.chains import LOST
from playhead.world.training.distill import Distiller
from playhead.world.training.objectives import OBJECTIVES, DistillTraining
from playhead.world.training.self_rollout import RolloutReplay, SelfRollout, make_player
from playhead.world.training.steady import EMPTY, FREE
from tests.conftest import make_tiny_world

PAST, TICKS, BATCH = 9, 24, 2
SEEDS = (5, 6)
MIXED = torch.randint(1, 3, (BATCH, TICKS), generator=torch.Generator().manual_seed(2))


def make_setting(steps=(1000.0, 500.0)):
    """A world, a trainable copy of its generator, and a past with actions.

    The past is longer than the window, and the ticks more than the far memory reaches back.
    """
    world = make_tiny_world(one_pass=True, steps=steps, lay_out=False)
    config = world.config
    assert config.sampling.window < PAST and config.sampling.reach < TICKS
    generator = Generator(config.generator)
    generator.load_state_dict(world.generator.state_dict())
    draw = torch.Generator().manual_seed(3)
    past = torch.randn((BATCH, PAST, *config.latent_shape), generator=draw)
    actions = torch.randint(0, 2, (BATCH, PAST + TICKS, 8), generator=draw).float()
    return world, generator, past, actions


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


def distiller(world, tmp_path, objective="dmd", anchor=0.0, rest=0.0, truth=0.0) -> Distiller:
    start = tmp_path / "generator.safetensors"
    save_weights(start, world.generator.state_dict(), torch.float32)
    settings = DistillTraining(
        objective=objective, clips=BATCH, length=PAST + TICKS, past=PAST, learning_rate=2e-3, anchor=anchor,
        rest=rest, truth=truth, compile=False,
    )  # fmt: skip
    config = world.config
    return Distiller(
        config.generator, config.sampling, settings, config.latent_shape, torch.device("cpu"), start, start
    )


def enter(chain, past, actions, chords):
    """Starts a chain anew; of its sessions those that are not free hold nothing."""
    noises = torch.randn((PAST, BATCH, 1, *past.shape[2:]), generator=draw(9))
    chain.begin(past, actions[:, :PAST], noises, chords, torch.zeros(BATCH, chain.held.shape[-1]), 9)


def dream(three, past, actions, seed=0, keep=True):
    chain = three.chains[0]
    free = torch.full((BATCH,), FREE)
    enter(chain, past, actions, free)
    return three.dream(chain, actions[:, PAST:], torch.Generator().manual_seed(seed), keep)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def footage(window):
    """Latents and actions of a clip as long as a window."""
    return torch.randn(window.latents.shape, generator=draw(7)), window.actions


def test_a_student_that_dreams_like_its_teacher_is_left_alone(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path)
    window = dream(three, past, actions)
    direction = three.direction(window, (window.latents, actions), torch.Generator().manual_seed(0))
    assert torch.count_nonzero(direction) == 0  # critic and teacher begin as the same model


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "rest"])
def test_the_critic_learns_and_the_direction_is_finite(setting, tmp_path, objective):
    world, _, past, actions = setting
    three = distiller(world, tmp_path, objective)
    window = dream(three, past, actions)
    real = torch.zeros_like(window.latents), actions
    losses = [
        float(three.judge.learn(window, real, 1.0, torch.Generator().manual_seed(0))) for _ in range(25)
    ]
    assert losses[-1] < losses[0]
    direction = three.direction(window, real, torch.Generator().manual_seed(1))
    assert direction.shape == window.stretch.latents.shape
    assert torch.isfinite(direction).all() and torch.count_nonzero(direction)


def test_a_chain_is_scored_from_its_real_past_and_then_from_its_own_frames(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path)
    first = dream(three, past, actions)
    assert first.real == PAST and torch.equal(first.latents[:, :PAST], past)
    second = three.dream(three.chains[0], actions[:, PAST:], torch.Generator().manual_seed(1), False)
    assert second.real == 0 and torch.equal(second.latents[:, :PAST], first.latents[:, -PAST:])
    assert three.chains[0].rollout.cache.length == PAST + 2 * TICKS


def test_first_ticks_are_held_to_what_followed_in_footage_and_later_ones_are_not(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path, truth=2.0)
    window = dream(three, past, actions)
    followed = torch.randn(window.latents.shape, generator=draw(3))
    direction = three.direction(window, (followed, actions), draw())
    assert torch.equal(direction, 2.0 * (window.stretch.estimates - followed[:, PAST:]))
    later = three.dream(three.chains[0], actions[:, PAST:], draw(1), False)
    assert torch.count_nonzero(three.direction(later, (followed, actions), draw())) == 0


def test_a_student_moves_against_the_direction(setting, tmp_path):
    """The direction away from a target, given again and again, brings the dream nearer to the target."""
    world, _, past, actions = setting
    three = distiller(world, tmp_path)
    distances = []
    for _ in range(12):
        window = dream(three, past, actions)
        distances.append(float(window.stretch.latents.square().mean()))
        three.student_step(window, window.stretch.latents, footage(window), 1.0, draw())
    assert distances[-1] < 0.9 * distances[0]


def test_a_session_at_rest_is_held_to_what_it_saw(setting, tmp_path):
    """From tick to tick, and where it settles after it moved; others go by the objective."""
    world, _, past, actions = setting
    three = distiller(world, tmp_path, rest=3.0)
    chain, chords = three.chains[0], torch.tensor([FREE, EMPTY])
    enter(chain, past, actions, chords)
    window = three.dream(chain, actions[:, PAST:], draw(), False)
    direction = three.direction(window, (window.latents, actions), draw())
    assert torch.equal(direction[1], 3.0 * (window.stretch.estimates[1] - past[1, -1:]))
    assert torch.count_nonzero(direction[0]) == 0  # as its teacher has it
    assert not window.actions[1, -TICKS:, :].any() and window.actions[0, -TICKS:].any()
    seen = window.latents[0, -1:].clone()
    chain.settle(torch.tensor([True, False]))
    window = three.dream(chain, actions[:, PAST:], draw(), False)
    direction = three.direction(window, (window.latents, actions), draw())
    assert torch.equal(direction[0], 3.0 * (window.stretch.estimates[0] - seen))


def resting(setting, tmp_path):
    """A distiller whose first chain rests, and what its sessions show after a stretch of that."""
    world, _, past, actions = setting
    three = distiller(world, tmp_path, rest=3.0)
    chain = three.chains[0]
    enter(chain, past, actions, torch.full((BATCH,), EMPTY))
    return three, chain, three.dream(chain, actions[:, PAST:], draw(), False).latents[:, -1:].clone()


def test_a_session_that_lost_what_it_saw_is_held_to_what_it_shows(setting, tmp_path):
    """An untrained world loses it at once; one that errs by a little is brought back to it."""
    _, _, past, actions = setting
    three, chain, shown = resting(setting, tmp_path)
    assert (shown - past[:, -1:]).square().mean() > LOST**2
    chain.view[1] = shown[1] + 0.5 * LOST
    window = three.dream(chain, actions[:, PAST:], draw(), False)
    direction = three.direction(window, (window.latents, actions), draw())
    held = torch.stack([shown[0], shown[1] + 0.5 * LOST])
    assert torch.equal(direction, 3.0 * (window.stretch.estimates - held))


def test_what_a_lost_session_shows_is_matched_to_footage_too(setting, tmp_path):
    """One that still shows what it saw is not: what comes next is known."""
    actions = setting[3]
    three, chain, shown = resting(setting, tmp_path)
    chain.view[1] = shown[1]
    window = three.dream(chain, actions[:, PAST:], draw(), False)
    assert window.lost().flatten().tolist() == [True, False]
    for seed in range(3):
        three.judge.learn(window, footage(window), 1.0, draw(seed))
    free = dataclasses.replace(window, rests=torch.zeros_like(window.rests))
    matched = three.direction(free, footage(window), draw())
    still = 3.0 * (window.stretch.estimates - window.still())
    direction = three.direction(window, footage(window), draw())
    assert torch.count_nonzero(matched[0]) and torch.equal(direction[0], (still + matched)[0])
    assert torch.equal(direction[1], still[1])


def test_without_a_critic_free_sessions_are_held_to_what_they_would_have_dreamed(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path, "rest", rest=2.0)
    assert three.judge is None
    chain, chords = three.chains[0], torch.tensor([FREE, EMPTY])
    sizes = []
    for seed in range(4):
        enter(chain, past, actions, chords)
        window = three.dream(chain, actions[:, PAST:], draw(1), True)
        direction = three.direction(window, (window.latents, actions), draw())
        sizes.append(direction.square().mean((1, 2, 3, 4)))
        three.student_step(window, direction, footage(window), 1.0, draw(seed))
    assert sizes[0][0] < 1e-4 * sizes[0][1]  # the same weights, but for rounding
    assert 10 * sizes[0][0] < sizes[1][0] < sizes[1][1]  # other weights, and no longer quite the same dream


def test_resting_sessions_stay_where_they_are_better_and_better(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path, rest=2.0)
    chain, chords = three.chains[0], torch.full((BATCH,), EMPTY)
    far = []
    for seed in range(12):
        enter(chain, past, actions, chords)
        window = three.dream(chain, actions[:, PAST:], draw(1), True)
        far.append(float((window.stretch.latents - past[:, -1:]).square().mean()))
        direction = three.direction(window, (window.latents, actions), draw(seed))
        three.student_step(window, direction, footage(window), 1.0, draw(seed))
    assert far[-1] < 0.9 * far[0]


def test_an_anchored_student_also_learns_from_footage(setting, tmp_path):
    """Under a direction that asks for nothing, it predicts what follows a real past better and better."""
    world, _, past, actions = setting
    three = distiller(world, tmp_path, anchor=1.0)
    assert three.anchor is not None and three.anchor.model is three.student.last
    real = footage(dream(three, past, actions))

    def flow_loss():
        return float(three.anchor.loss(*real, draw())[0].detach())

    before = flow_loss()
    for seed in range(12):
        window = dream(three, past, actions)
        three.student_step(window, torch.zeros_like(window.stretch.latents), real, 1.0, draw(seed))
    assert flow_loss() < 0.9 * before


def test_phases_match_steps_at_their_own_levels_and_commit_whole_ticks(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path, "phased")
    sigmas = three.schedule.sigmas
    window = dream(three, past, actions)
    low, high = window.phase.unbind(1)
    left_first = window.stretch.sigmas[:, 0] == sigmas[0]
    assert torch.equal(high, window.stretch.sigmas[:, 0])
    assert torch.allclose(low, torch.where(left_first, sigmas[1], 0.0))
    x, t, _, b = three.judge._in_phase(window, torch.Generator().manual_seed(0))
    assert (t[:, PAST:] > low[:, None]).all() and (t[:, PAST:] < high[:, None]).all()
    assert torch.equal(x[:, :PAST], past) and not b[:, :PAST].any()  # the real past stays clean
    same = window.stretch.latents == window.stretch.estimates
    assert all(bool(same[i].all()) != bool(left_first[i]) for i in range(BATCH))


def test_within_a_phase_the_true_denoiser_has_the_least_loss(setting, tmp_path, monkeypatch):
    """Of clean windows that are one constant the best estimate is that constant."""
    world, _, past, actions = setting
    three = distiller(world, tmp_path, "phased")
    window = dream(three, past, actions)
    flat = dataclasses.replace(window, latents=torch.full_like(window.latents, 0.7), real=0)

    def loss(constant: float) -> float:
        monkeypatch.setattr(three.judge.critic, "estimate", lambda x, t, a: torch.full_like(x, constant))
        draw = torch.Generator().manual_seed(4)
        return sum(float(three.judge._phase_loss(flat, draw)) for _ in range(20))

    assert loss(0.7) < min(loss(0.3), loss(1.1))
