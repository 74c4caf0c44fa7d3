"""A world: a loaded generator and autoencoder, and the five things that can be done with a state of it.

`encode` and `prefill` give a state its past; `denoise`, `decode` and `commit` make one tick. The state holds
every buffer, allocated once; nothing else here changes while a world is played. Shapes: B sessions stepped
together, F latents a tick.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from world import acceleration, checkpoint
from world.config import WorldConfig, load_config
from world.errors import WorldError
from world.generator import Generator
from world.kv_cache import KVCache
from world.lighttae import LightTAE, Memory
from world.noise import noises
from world.sampler import Schedule, denoise

SHIPPED = Path(__file__).parent / "shipped"
MAX_STEPS = 8


class WorldState:
    """Everything that changes while a world is played; buffers are overwritten in place."""

    def __init__(self, world: "World", batch: int) -> None:
        config, g = world.config, world.generator.config
        sampling = config.sampling
        self.cache = KVCache(
            layers=g.layers,
            batch=batch,
            heads=g.heads,
            frames=sampling.window,
            sink=sampling.sink,
            tokens=world.tokens,
            head_dim=g.head_dim,
            span=sampling.window if sampling.positions == "endless" else None,
            device=world.device,
            dtype=world.dtype,
        )
        block = (batch, sampling.latents_per_tick, *config.latent_shape)
        self.batch = batch
        self.latent = torch.zeros(block, device=world.device)
        self.schedule = world.schedule(world.steps)
        self.noises = torch.zeros((MAX_STEPS, *block), device=world.device)
        self.action = torch.zeros((*block[:2], g.buttons), device=world.device)
        self.cos_sin = world.rope_table(0)
        self.decoder_memory: Memory | None = None
        self.fresh = True  # nothing was decoded yet: the decoder's memory does not count
        self.frames = torch.zeros(0, dtype=torch.uint8, device=world.device)
        self.pictures: dict[int, Tensor] = {}  # a buffer for each number of frames that a block may yield
        self.graphs = acceleration.Graphs(world.device)

    def restart(self) -> None:
        """Forgets everything; the buffers stay."""
        self.cache.length, self.cache.slots = 0, []
        self.fresh = True

    def state(self) -> dict[str, Any]:
        """A copy of all that the next tick depends on."""
        memory = [] if self.fresh or self.decoder_memory is None else self.decoder_memory
        return {
            "cache": self.cache.state(),
            "decoder_memory": [m.clone() for m in memory],
            "fresh": self.fresh,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over a copy made by `state`."""
        self.cache.load_state(state["cache"])
        self.fresh = state["fresh"]
        if not self.fresh:
            self.keep_decoder_memory(state["decoder_memory"])

    def keep_decoder_memory(self, memory: Memory) -> None:
        """Overwrites the decoder's memory in place where it exists, so that captured graphs still see it."""
        if self.decoder_memory is None:
            self.decoder_memory = [m.clone() for m in memory]
            return
        for held, new in zip(self.decoder_memory, memory, strict=True):
            held.copy_(new)


class World:
    """A generator, an autoencoder and their configuration on one device.

    `side_by_side`: the commit and the decode of a tick gain from running in two threads.
    """

    def __init__(
        self,
        config: WorldConfig,
        generator: Generator,
        autoencoder: LightTAE,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        steps: int | None = None,
    ) -> None:
        self.config = config
        self.device, self.dtype = torch.device(device), dtype
        self.generator = generator.to(self.device, dtype).eval().requires_grad_(False)
        layers = self.generator.join()
        # Convolutions are a quarter faster with the channels innermost.
        self.autoencoder = autoencoder.to(self.device, dtype, memory_format=torch.channels_last)
        self.autoencoder.eval().requires_grad_(False)
        latent = config.latent
        self.tokens = generator.tokens(latent.height, latent.width)
        self._mean = torch.tensor(latent.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(latent.std, device=self.device)[:, None, None]
        self.side_by_side = self.device.type == "cpu" and acceleration.share_cores()
        if self.device.type == "cpu":
            acceleration.pack(layers, self.tokens * config.sampling.latents_per_tick)
        self._timesteps: dict[tuple[float, int], Tensor] = {}
        self.steps = steps if steps is not None else len(config.sampling.steps)
        self.schedule(self.steps)

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        steps: int | None = None,
    ) -> "World":
        """Loads a world by the name of a shipped one or by the path of its folder.

        Raises WorldError, naming file and mend, for anything missing, damaged or contradictory.
        """
        folder = find_world(name)
        config = load_config(folder / "world.toml")
        target = acceleration.pick_device(device)
        generator, autoencoder = Generator(config.generator), LightTAE(config.autoencoder)
        for module, file in (
            (generator, config.generator_weights),
            (autoencoder, config.autoencoder_weights),
        ):
            checkpoint.fill(module, checkpoint.read_weights(folder / file), folder / file)
        return cls(config, generator, autoencoder, target, dtype or acceleration.pick_dtype(target), steps)

    def schedule(self, steps: int) -> Schedule:
        """The noise levels of a tick of `steps` denoise steps. Raises WorldError for an impossible count."""
        if not 1 <= steps <= MAX_STEPS:
            raise WorldError(f"a tick needs 1 to {MAX_STEPS} denoise steps, not {steps}; try --steps 2")
        sampling = self.config.sampling
        return Schedule.from_steps(sampling.steps_for(steps), sampling.shift)

    def new_state(self, batch: int = 1) -> WorldState:
        """Allocates the state of `batch` sessions that step together."""
        return WorldState(self, batch)

    def rope_table(self, first: int) -> Tensor:
        """The rope table of a block whose first latent has absolute index `first`, on the device."""
        latent = self.config.latent
        frames = range(first, first + self.config.sampling.latents_per_tick)
        return self.generator.rope_table(frames, latent.height, latent.width).to(self.device)

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames uint8 `(T, H, W, 3)` to normalised latents `(T / time factor, C, h, w)`, float32.

        At a time factor of 1 every frame is encoded on its own, so that its latent depends on nothing else.

        Raises WorldError for frames of another shape or type than the world's.
        """
        size = (self.config.frame_height, self.config.frame_width, 3)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != size or not len(frames):
            raise WorldError(
                f"frames are {frames.dtype} {frames.shape} where the world `{self.config.name}` needs "
                f"uint8 (T, {', '.join(map(str, size))}); resize them first"
            )
        latents: list[Tensor] = []
        memory: Memory | None = None
        for chunk in torch.from_numpy(frames).split(16):
            pixels = chunk.to(self.device).permute(0, 3, 1, 2).to(self.dtype) / 255
            if self.config.autoencoder.time_factor == 1:
                z, _ = self.autoencoder.encoder(pixels[:, None])
                latents.append(z[:, 0].float())
            else:
                z, memory = self.autoencoder.encoder(pixels[None], memory)
                latents.append(z[0].float())
        return (torch.cat(latents) - self._mean) / self._std

    @torch.no_grad()
    def prefill(self, state: WorldState, latents: Tensor, actions: Tensor) -> Tensor:
        """Commits and decodes a past: latents `(B, T, C, h, w)`, actions `(B, T, buttons)` that led to each.

        T has to be a multiple of the latents a tick. Returns the frames of the last block, as `decode` does.
        """
        size = self.config.sampling.latents_per_tick
        if not latents.shape[1] or latents.shape[1] % size:
            raise WorldError(
                f"a context of {latents.shape[1]} latents cannot be committed in blocks of {size}"
            )
        blocks = zip(latents.split(size, 1), actions.split(size, 1), strict=True)
        for block, action in blocks:
            state.latent.copy_(block)
            state.action.copy_(action)
            self.decode(state)
            self.commit(state)
        return state.frames

    @torch.no_grad()
    def denoise(self, state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        """Dreams the next block into `state.latent`; `actions` `(B, F, buttons)`, one seed a session."""
        state.action.copy_(actions)
        shape = state.latent.shape[1:]
        for step in range(len(state.schedule)):
            state.noises[step].copy_(noises(seeds, tick, step, shape))
        self._begin(state)
        key = ("denoise", state.schedule.sigmas, *state.cache.slots, state.cache.visible)
        state.graphs.run(key, lambda: self._denoise(state))

    @torch.no_grad()
    def commit(self, state: WorldState) -> None:
        """Writes `state.latent`'s keys and values to the cache, by a pass at the context noise level."""
        self._begin(state)
        key = ("commit", *state.cache.slots, state.cache.visible)
        state.graphs.run(key, lambda: self._commit(state))
        state.cache.end()

    @torch.no_grad()
    def decode(self, state: WorldState) -> Tensor:
        """Decodes `state.latent` to uint8 frames `(B, frames, H, W, 3)` on the device.

        The very first block of a stream yields fewer frames where the time factor is above 1.
        """
        factor = self.config.autoencoder.time_factor
        count = state.latent.shape[1] * factor - (factor - 1 if state.fresh else 0)
        if state.fresh:
            self._decode(state)
        else:
            state.graphs.run(("decode",), lambda: self._decode(state))
        state.frames = state.pictures[count]
        return state.frames

    def _begin(self, state: WorldState) -> None:
        state.cache.begin(self.config.sampling.latents_per_tick)
        state.cos_sin.copy_(self.rope_table(state.cache.length))

    def _predict(self, state: WorldState, x: Tensor, timestep: float) -> Tensor:
        key = (timestep, state.batch)
        if key not in self._timesteps:
            self._timesteps[key] = torch.full(x.shape[:2], timestep, device=self.device)
        return self.generator(x, self._timesteps[key], state.cos_sin, state.cache.attend, self._action(state))

    def _action(self, state: WorldState) -> Tensor | None:
        return state.action if self.config.generator.buttons else None

    def _denoise(self, state: WorldState) -> None:
        draws = state.noises[: len(state.schedule)].unbind(0)
        clean = denoise(lambda x, t: self._predict(state, x, t), draws, state.schedule)
        state.latent.copy_(clean)

    def _commit(self, state: WorldState) -> None:
        self._predict(state, state.latent, self.config.sampling.context_noise)

    def _decode(self, state: WorldState) -> None:
        z = (state.latent * self._std + self._mean).to(self.dtype)
        pixels, memory = self.autoencoder.decoder(z, None if state.fresh else state.decoder_memory)
        frames = pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
        count = frames.shape[1]
        if count not in state.pictures:
            state.pictures[count] = torch.empty_like(frames, memory_format=torch.contiguous_format)
        state.pictures[count].copy_(frames)
        state.keep_decoder_memory(memory)
        state.fresh = False


def shipped_worlds() -> list[str]:
    """Names of the worlds that come with the project."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/world.toml"))


def find_world(name: str | Path) -> Path:
    """The folder of a world given by name or by path. Raises WorldError listing the known names."""
    if (SHIPPED / str(name) / "world.toml").is_file():
        return SHIPPED / str(name)
    path = Path(name)
    if path.is_dir():
        return path
    raise WorldError(
        f"there is no world `{name}`; shipped are {', '.join(shipped_worlds()) or 'none'}, "
        "or give the folder of one"
    )
