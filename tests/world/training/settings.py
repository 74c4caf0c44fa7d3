"""What self-rollout is tried on: a world of two sessions, its generator once more, and a past."""

import torch

from playhead.world.generator import Generator
from tests.conftest import make_tiny_world

PAST, TICKS, BATCH = 9, 24, 2


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
