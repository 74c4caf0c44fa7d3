"""Self-rollout promises: it is play itself, its gradients stop where they should, and students follow."""

import msgspec
import pytest
import torch

from tests.conftest import make_tiny_world
from world.checkpoint import save_weights
from world.generator import Generator
from world.sampler import Schedule
from world.training.distill import Distiller, DistillTraining
from world.training.self_rollout import SelfRollout

PAST, TICKS, BATCH = 2, 7, 2


@pytest.fixture(scope="module")
def setting():
    """A world, a trainable copy of its generator, and a past with actions; more ticks than the window."""
    world = make_tiny_world()
    config = world.config
    assert config.sampling.window < PAST + TICKS
    generator = Generator(config.generator)
    generator.load_state_dict(world.generator.state_dict())
    draw = torch.Generator().manual_seed(3)
    past = torch.randn((BATCH, PAST, *config.latent_shape), generator=draw)
    actions = torch.randint(0, 2, (BATCH, PAST + TICKS, 8), generator=draw).float()
    return world, generator, past, actions


def both(step: int) -> torch.Tensor:
    """Both sessions leave every tick after `step`."""
    return torch.full((BATCH, TICKS), step)


def rollout_of(world, generator) -> SelfRollout:
    sampling = world.config.sampling
    return SelfRollout(generator, sampling, Schedule.from_steps(sampling.steps, sampling.shift))


def test_a_rollout_in_training_is_the_rollout_of_play_bit_for_bit(setting):
    world, generator, past, actions = setting
    state = world.new_state(BATCH)
    world.prefill(state, past, actions[:, :PAST])
    played = []
    for tick in range(TICKS):
        world.denoise(state, actions[:, PAST + tick][:, None], [5, 6], tick)
        played.append(state.latent.clone())
        world.commit(state)
    with torch.no_grad():
        rollout = rollout_of(world, generator)
        trained = list(rollout.ticks(past, actions, [5, 6], both(2), torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(played, trained, strict=True))


def test_asking_for_gradients_changes_no_number(setting):
    world, generator, past, actions = setting
    rollout = rollout_of(world, generator)
    exits = torch.tensor([[1, 2, 2, 1, 2, 1, 2], [2, 2, 1, 1, 1, 2, 1]])
    with torch.no_grad():
        plain = list(rollout.ticks(past, actions, [5, 6], exits, torch.float32))
    with_gradient = [c.detach() for c in rollout.ticks(past, actions, [5, 6], exits, torch.float32)]
    assert all(torch.equal(a, b) for a, b in zip(plain, with_gradient, strict=True))


def test_a_gradient_passes_through_the_exit_step_alone(setting, monkeypatch):
    world, generator, past, actions = setting
    rollout = rollout_of(world, generator)
    caches, last_pass = [], []
    make, flow = rollout.cache, rollout._flow
    monkeypatch.setattr(rollout, "cache", lambda *a: caches.append(make(*a)) or caches[-1])

    def watched(cache, x, timestep, action):
        if torch.is_grad_enabled():
            last_pass.append((x.clone(), timestep, cache.k.clone(), cache.v.clone(), cache.length))
        return flow(cache, x, timestep, action)

    monkeypatch.setattr(rollout, "_flow", watched)
    for clean in rollout.ticks(past, actions, [5, 6], both(2), torch.float32):
        assert not caches[0].k.requires_grad and not caches[0].v.requires_grad
        generator.zero_grad()
        clean.sum().backward()
    assert len(last_pass) == TICKS  # of two steps a tick, one wanted a gradient
    found = {n: p.grad.clone() for n, p in generator.named_parameters() if p.grad is not None}

    x, timestep, k, v, length = last_pass[-1]
    assert not x.requires_grad
    cache = make(past, torch.float32)
    cache.k, cache.v, cache.length = k, v, length
    cache.begin(1)
    generator.zero_grad()
    alone = x - timestep / 1000 * flow(cache, x, timestep, actions[:, -1:])
    alone.sum().backward()
    for name, parameter in generator.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad)


def test_every_session_leaves_after_a_step_of_its_own(setting):
    """A session's rollout does not depend on when the session beside it leaves."""
    world, generator, past, actions = setting
    rollout = rollout_of(world, generator)
    with torch.no_grad():
        exits = torch.tensor([[1, 2, 1, 2, 1, 2, 1], [2, 1, 2, 1, 2, 1, 2]])
        mixed = torch.cat(list(rollout.ticks(past, actions, [5, 6], exits, torch.float32)), 1)
        for i, seed in enumerate((5, 6)):
            one = slice(i, i + 1)
            alone = rollout.ticks(past[one], actions[one], [seed], exits[one], torch.float32)
            torch.testing.assert_close(torch.cat(list(alone), 1), mixed[one], atol=1e-5, rtol=1e-5)


def distiller(world, tmp_path) -> Distiller:
    start = tmp_path / "generator.safetensors"
    save_weights(start, world.generator.state_dict(), torch.float32)
    settings = DistillTraining(clips=BATCH, length=PAST + TICKS, past=PAST, learning_rate=2e-3, compile=False)
    sampling = msgspec.structs.replace(world.config.sampling, window=4)
    size = world.config.latent_shape[1:]
    return Distiller(world.config.generator, sampling, settings, size, torch.device("cpu"), start)


def test_a_student_that_dreams_like_its_teacher_is_left_alone(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path)
    dream = three.dream(past, actions, [1, 2], both(2))
    direction = three.direction(dream, actions, PAST, torch.Generator().manual_seed(0))
    assert torch.count_nonzero(direction) == 0  # critic and teacher begin as the same model


def test_the_critic_learns_the_student_and_the_teacher_stays(setting, tmp_path):
    world, _, past, actions = setting
    three = distiller(world, tmp_path)
    dream = three.dream(past, actions, [1, 2], both(2))
    before = {k: v.clone() for k, v in three.teacher.model.state_dict().items()}
    losses = [
        float(three.critic_step(dream, actions, 1.0, torch.Generator().manual_seed(0))) for _ in range(12)
    ]
    assert losses[-1] < losses[0]
    assert all(torch.equal(v, before[k]) for k, v in three.teacher.model.state_dict().items())
    direction = three.direction(dream, actions, PAST, torch.Generator().manual_seed(0))
    assert torch.count_nonzero(direction[:, :PAST]) == 0  # the real past has nowhere to move
    assert torch.count_nonzero(direction[:, PAST:])


def test_a_student_moves_against_the_direction(setting, tmp_path):
    """The direction away from a target, given again and again, brings the dream nearer to the target."""
    world, _, past, actions = setting
    three = distiller(world, tmp_path)
    target = torch.zeros(BATCH, PAST + TICKS, *world.config.latent_shape)
    distances = []
    for _ in range(12):
        dream = three.dream(past, actions, [1, 2], both(2))
        distances.append(float((dream - target)[:, PAST:].square().mean()))
        three.student_step(dream, dream - target, actions, [1, 2], both(2), PAST, 1.0)
    assert distances[-1] < 0.9 * distances[0]
