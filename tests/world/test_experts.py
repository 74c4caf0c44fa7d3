"""Experts promise: each serves its own noise levels, in play as in training, and a world keeps them."""

from pathlib import Path

import msgspec
import pytest
import tomli_w
import torch

from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.checkpoint import save_weights
from playhead.world.config import load_config
from playhead.world.errors import PlayheadError, WorldError
from playhead.world.experts import Experts
from playhead.world.generator import Generator
from playhead.world.past import PAST, prefill
from playhead.world.sampler import Schedule
from playhead.world.training.distill import Distiller
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.self_rollout import SelfRollout, make_player
from playhead.world.training.steady import FREE
from playhead.world.world import World
from tests.conftest import make_tiny_context, make_tiny_world

AHEAD = Action(frozenset({"forward"}))
SCHEDULE = Schedule((1.0, 0.75))
CPU = torch.device("cpu")


def generator(seed: int, one_pass: bool = False) -> Generator:
    return make_tiny_world(seed, one_pass=one_pass).generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of two experts."""
    return write_experts(tmp_path_factory.mktemp("experts"), one_pass=False)


@pytest.fixture(scope="module")
def one_pass_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose last denoise pass commits, as those are that are trained."""
    return write_experts(tmp_path_factory.mktemp("one-pass-experts"), one_pass=True)


def write_experts(folder: Path, one_pass: bool) -> Path:
    world = make_tiny_world(0, one_pass=one_pass)
    config = msgspec.structs.replace(world.config, expert_weights=("first.safetensors",))
    (folder / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
    save_weights(folder / "first.safetensors", generator(1, one_pass).state_dict(), torch.float32)
    save_weights(folder / config.generator_weights, world.generator.state_dict(), torch.float32)
    save_weights(folder / config.autoencoder_weights, world.autoencoder.state_dict(), torch.float32)
    return folder


def load(folder: Path, steps: int | None = None) -> World:
    return World.load(folder, "cpu", torch.float32, steps)


def test_an_expert_serves_from_its_own_level_down_to_the_next():
    experts = Experts([generator(0), generator(1)], SCHEDULE)
    assert [experts.number(t) for t in (1000.0, 750.1, 750.0, 300.0, 0.0)] == [0, 0, 1, 1, 1]
    assert experts.numbers(torch.tensor([[1.0, 0.75], [0.0, 0.8]])).tolist() == [[0, 1], [1, 0]]
    assert experts.at(900.0) is experts.generators[0] and experts.at(0.0) is experts.last


def test_one_generator_serves_all_levels():
    alone = Experts([generator(0)], SCHEDULE)
    assert alone.at(1000.0) is alone.at(0.0) is alone.last


def test_experts_and_steps_have_to_be_as_many():
    with pytest.raises(ValueError, match="3 experts do not share out 2 steps"):
        Experts([generator(seed) for seed in range(3)], SCHEDULE)


def test_the_first_step_is_the_first_experts_and_the_commit_the_lasts(folder: Path):
    """At one step a tick, the latent is what the first expert alone makes; its commit is not."""
    mixed, first = Session(load(folder, 1), make_tiny_context(), 3), make_tiny_world(1)
    only = Session(
        World(first.config, first.generator, load(folder).autoencoder, steps=1), make_tiny_context(), 3
    )
    # Both start from a past that another generator committed: nothing is equal but what one step reads of it.
    for session in (mixed, only):
        session._state.cache.k.zero_()
        session._state.cache.v.zero_()
        session.step(AHEAD)
        session.finish()
    torch.testing.assert_close(mixed._state.latent, only._state.latent)
    assert not torch.equal(mixed._state.cache.k, only._state.cache.k)


def test_a_world_of_experts_comes_back_bit_for_bit(folder: Path):
    session = Session(load(folder), make_tiny_context(), 3)
    session.step(AHEAD)
    kept, twin = session.snapshot(), session.fork()
    ahead = [session.step(AHEAD).tobytes() for _ in range(3)]
    assert [twin.step(AHEAD).tobytes() for _ in range(3)] == ahead
    session.restore(kept)
    assert [session.step(AHEAD).tobytes() for _ in range(3)] == ahead


def test_a_missing_expert_is_named(folder: Path, tmp_path: Path):
    for file in folder.iterdir():
        if file.name != "first.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(WorldError, match=r"first\.safetensors"):
        load(tmp_path)


def test_a_wrong_number_of_experts_is_refused(folder: Path, tmp_path: Path):
    config = msgspec.structs.replace(load_config(folder / "world.toml"), expert_weights=("a", "b"))
    (tmp_path / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
    with pytest.raises(WorldError, match="`expert_weights` has 2 files"):
        load_config(tmp_path / "world.toml")


def test_a_rollout_of_experts_in_training_is_that_of_play_bit_for_bit():
    tiny = make_tiny_world(0, one_pass=True)
    world = World(
        tiny.config, generator(0, True), tiny.autoencoder, experts=[generator(1, True)], lay_out=False
    )
    config, draw = world.config, torch.Generator().manual_seed(0)
    past = torch.randn((2, 3, *config.latent_shape), generator=draw)
    held = torch.randint(0, 2, (2, 7, 8), generator=draw).float()
    state = world.new_state(2)
    before = torch.randn((3, 2, 1, *config.latent_shape), generator=draw)
    world.noises = lambda seeds, tick, step, shape: before[tick - PAST]  # counted down to the first tick
    prefill(world, state, past, held[:, :3], range(len(past)))
    noises = torch.randn((4, 2, 2, 1, *config.latent_shape), generator=draw)
    played = []
    for tick in range(4):
        world._set_action(state, held[:, 3 + tick, None])
        world._begin(state)
        state.noises[:2] = noises[tick]
        world._denoise(state, state.schedule)
        played.append(state.latent.clone())
        world.commit(state)
    model = Experts(
        [generator(1, True), generator(0, True)],
        Schedule.from_steps(config.sampling.steps, config.sampling.shift),
    )
    rollout = SelfRollout(
        make_player(model, torch.float32), config.sampling, state.schedule, 2, config.latent_shape
    )
    rollout.begin(past, held[:, :3], before)
    trained = rollout.advance(held[:, 3:], noises, torch.full((2, 4), 2)).latents
    assert torch.equal(torch.cat(played, 1), trained)


def distiller(folder: Path, **settings: object) -> Distiller:
    config = load_config(folder / "world.toml")
    start = folder / config.generator_weights
    wanted = DistillTraining(clips=4, length=10, past=4, learning_rate=1e-3, compile=False, **settings)
    return Distiller(config.generator, config.sampling, wanted, config.latent_shape, CPU, start, start)


def test_each_expert_learns_from_the_steps_that_were_left_to_it(one_pass_folder: Path, tmp_path: Path):
    """Sessions that all leave after the first step teach the first expert and leave the last as it was."""
    phased = distiller(one_pass_folder, objective="phased", experts=True)
    chain, draw = phased.chains[0], torch.Generator().manual_seed(0)
    latents, told = torch.randn((4, 10, 8, 4, 4), generator=draw), torch.zeros(4, 10, 8)
    noises = torch.randn((4, 4, 1, 8, 4, 4), generator=draw)
    chain.begin(latents[:, :4], told[:, :4], noises, torch.full((4,), FREE), torch.zeros(4, 8), 3)
    before = {k: v.clone() for k, v in phased.student.state_dict().items()}
    window = phased.dream(chain, told[:, 4:], draw, keep=True)
    exits = phased.student.numbers(window.stretch.sigmas)
    assert 0 < exits.float().mean() < 1  # some sessions were left to each
    direction = torch.ones_like(window.stretch.latents) * (exits == 0)[:, :, None, None, None]
    phased.student_step(window, direction, (latents, told), 1.0, draw)
    after = phased.student.state_dict()
    moved = {k: float((v - before[k]).abs().max()) for k, v in after.items() if k.endswith("ffn.0.weight")}
    # What is left of a step without a gradient is the decay of the weights: a hundredth of it.
    assert all(v > 5e-4 if k.startswith("generators.0.") else v < 5e-5 for k, v in moved.items())
    phased.keep(tmp_path / "last.safetensors", [tmp_path / "first.safetensors"])
    assert (tmp_path / "first.safetensors").stat().st_size == (tmp_path / "last.safetensors").stat().st_size


@pytest.mark.parametrize("settings", [{"objective": "dmd"}, {"objective": "phased", "anchor": 0.5}])
def test_experts_where_nothing_is_taught_by_phases_are_refused(folder: Path, settings: dict):
    with pytest.raises(PlayheadError, match="use --experts with --objective phased and no --anchor"):
        distiller(folder, experts=True, **settings)
