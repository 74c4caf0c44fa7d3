"""What a student learns from its own rollouts: to dream as its teacher does, and to stay where it is."""

import dataclasses

import pytest
import torch

from playhead.world.checkpoint import save_weights
from playhead.world.training.chains import LOST
from playhead.world.training.distill import Distiller
from playhead.world.training.objectives import OBJECTIVES, DistillTraining
from playhead.world.training.steady import EMPTY, FREE
from tests.world.training.settings import BATCH, PAST, TICKS, make_setting


@pytest.fixture(scope="module")
def setting():
    """One of two steps a tick."""
    return make_setting()


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
    chain.turn(torch.tensor([EMPTY, int(chain.chords[1])]), torch.zeros_like(chain.held[:, 0]))
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
