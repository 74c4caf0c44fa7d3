"""Many sessions in one forward: ticks a second against batch size, and the real game's frames beside it."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from playhead.world.noise import PrefetchedNoise
from playhead.world.past import prefill
from playhead.world.world import World

WARM_TICKS = 3  # on top of three rounds of the cache: it fills, every graph runs once, and is recorded


@dataclass(frozen=True)
class BatchSpeed:
    """Milliseconds of each tick of `sessions` sessions, decode and commit included, sorted."""

    sessions: int
    ticks: list[float]

    @property
    def rate(self) -> float:
        """Ticks a second, all sessions together."""
        return 1000 * self.sessions * len(self.ticks) / sum(self.ticks)

    def percentile(self, part: float) -> float:
        return self.ticks[min(len(self.ticks) - 1, int(part * len(self.ticks)))]


def bench_batch(world: World, sizes: list[int], ticks: int) -> Iterator[BatchSpeed]:
    """Measures one batch size after the other, frames fetched to main memory; each with random actions."""
    sampling, cuda = world.config.sampling, world.device.type == "cuda"
    warm = WARM_TICKS + (2 * sampling.window + sampling.reach if cuda else 0)
    world.noises = PrefetchedNoise(world.device)
    for size in sizes:
        state = world.new_state(size)
        draw = torch.Generator().manual_seed(0)
        shape = (*state.action.shape[:2], world.config.generator.inputs)
        past = torch.randn((size, sampling.latents_per_tick, *world.config.latent_shape), generator=draw)
        prefill(world, state, past.to(world.device), torch.zeros(shape), range(size))
        fetched = torch.empty(state.frames.shape, dtype=torch.uint8, pin_memory=cuda)
        times = []
        for tick in range(warm + ticks):
            held = torch.randint(0, 2, shape, generator=draw).to(state.action)
            began = time.perf_counter()
            world.denoise(state, held, range(size), tick)
            fetched.copy_(world.decode(state), non_blocking=True)  # the commit goes on meanwhile
            world.commit(state)
            if cuda:
                torch.cuda.synchronize(world.device)
            if tick >= warm:
                times.append(1000 * (time.perf_counter() - began))
        yield BatchSpeed(size, sorted(times))
        del state


def game_rate(seconds: float = 3.0) -> float | None:
    """Frames a second of ViZDoom as the collector plays it, on one core; None where it is not installed."""
    import numpy as np

    from playhead.world.training.doom import CollectError, hold, import_vizdoom, open_game
    from playhead.world.training.places import BUTTONS, PLACES

    try:
        import_vizdoom()
    except CollectError:
        return None
    rates = []
    with open_game(PLACES["my_way_home"]) as game:
        still = np.zeros(len(BUTTONS), np.uint8)
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            began = time.perf_counter()
            for _ in range(50):
                hold(game, still)
                _ = game.get_state().screen_buffer
            rates.append(50 / (time.perf_counter() - began))
    return statistics.median(rates)
