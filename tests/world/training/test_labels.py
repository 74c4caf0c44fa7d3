"""Labels in training promise: footage tells its places, and a dream stays in the one that it began in."""

import torch

from playhead.world.checkpoint import save_weights
from playhead.world.training.distill import Distiller
from playhead.world.training.footage import Footage
from playhead.world.training.objectives import DistillTraining
from playhead.world.training.steady import FREE
from playhead.world.training.train_generator import unlabelled
from tests.conftest import make_tiny_world

PLACES = ("hall", "yard")
CPU = torch.device("cpu")


def footage() -> Footage:
    """Three episodes: in the yard, in a place without a label, in the hall."""
    actions = torch.arange(9 * 2).view(9, 2).to(torch.uint8)
    frames = torch.zeros(9, 4, 4, 3, dtype=torch.uint8)
    return Footage(frames, actions, [0, 4, 6], ["yard", "moon", "hall"], PLACES)


def test_every_frame_is_told_what_led_to_it_and_where_it_is():
    led = footage().led()
    assert led[:, 2:].tolist() == [[0, 1]] * 4 + [[0, 0]] * 2 + [[1, 0]] * 3
    assert led[:, :2].tolist() == [
        [0, 0], [0, 1], [2, 3], [4, 5], [0, 0], [8, 9], [0, 0], [12, 13], [14, 15]
    ]  # fmt: skip


def test_some_clips_lose_their_label_whole_and_nothing_else():
    told = torch.ones(400, 3, 5)
    left = unlabelled(told, 2, 0.25, torch.Generator().manual_seed(0))
    assert left[..., :3].all()
    lost = (left[..., 3:] == 0).all((1, 2))
    assert torch.equal(lost, (left[..., 3:] == 0).any(-1).any(-1))  # all of a clip or none of it
    assert 60 < lost.sum() < 140


def test_a_chain_dreams_under_anybodys_keys_in_its_own_places(tmp_path):
    world = make_tiny_world(places=PLACES, one_pass=True)
    start = tmp_path / "generator.safetensors"
    save_weights(start, world.generator.state_dict(), torch.float32)
    settings = DistillTraining(clips=6, length=10, past=4, compile=False)
    config = world.config
    three = Distiller(config.generator, config.sampling, settings, config.latent_shape, CPU, start, start)
    chain, draw = three.chains[0], torch.Generator().manual_seed(0)
    here = torch.zeros(6, 4, 10)
    here[:3, :, 8], here[3:, :, 9] = 1, 1
    elsewhere = torch.zeros(6, 6, 10)
    elsewhere[..., :8], elsewhere[:3, :, 9], elsewhere[3:, :, 8] = 1, 1, 1
    chords, held = torch.tensor([0, 1, FREE] * 2), torch.zeros(6, 8)
    held[chords == 1, 2] = 1
    noises = torch.randn((4, 6, 1, *config.latent_shape), generator=draw)
    chain.begin(torch.zeros(6, 4, *config.latent_shape), here, noises, chords, held, 3)
    for _ in range(2):
        window = three.dream(chain, elsewhere, draw, keep=False)
        assert torch.equal(window.actions[..., 8:], here[:, :1, 8:].expand(-1, 10, -1))
        found = window.actions[:, -6:, :8]
        assert torch.equal(found[chords == FREE], elsewhere[chords == FREE, :, :8])
        assert torch.equal(found[chords != FREE], held[chords != FREE, None].expand(-1, 6, -1))
