"""A world: a loaded generator and autoencoder, and the five things that can be done with a state of it.

`encode` and `prefill` give a state its past; `denoise`, `decode` and `commit` make one tick. The state holds
every buffer, allocated once; nothing else here changes while a world is played. Shapes: B sessions stepped
together, F latents a tick.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from playhead.world import acceleration, checkpoint, packed
from playhead.world.attention_check import choose_backend
from playhead.world.config import WorldConfig, load_config
from playhead.world.context import Context, check_context
from playhead.world.encoding import FrameEncoder
from playhead.world.errors import WorldError
from playhead.world.experts import Experts
from playhead.world.found import find_world
from playhead.world.generator import Generator
from playhead.world.lighttae import LightTAE, MemBlock, Memory
from playhead.world.memory import cut_memory
from playhead.world.noise import noises
from playhead.world.packed_decoder import PackedDecoder
from playhead.world.packed_generator import PackedGenerator, fits
from playhead.world.sampler import Schedule, denoise
from playhead.world.size import check_size
from playhead.world.state import MAX_STEPS, WorldState

PAST = 2**48
"""The ticks of a known past count down from here, so that no session ever draws their noise again."""
COMMIT = "commit"
"""What a generator is called that has weights for the commit pass alone."""


class World:
    """A generator, an autoencoder and their configuration on one device.

    `generators`, by name: each step's expert (`generator` is the last, or the only one), and `COMMIT` where
    the commit has weights of its own. `side_by_side`: the commit and the decode of a tick gain from running
    in two threads. `turn`: held by the session whose tick is under way, where several threads play sessions
    of this world. `noises` draws a tick's noise: `world.noise.noises`, or an `Ahead` of it. `lay_out`: on a
    CPU weights are laid out for its kernels, which changes sums in their last bits.
    """

    def __init__(
        self,
        config: WorldConfig,
        generator: Generator,
        autoencoder: LightTAE,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        steps: int | None = None,
        *,
        commit_generator: Generator | None = None,
        experts: Sequence[Generator] = (),
        attention: str | None = None,
        lay_out: bool = True,
    ) -> None:
        self.config = config
        self.device, self.dtype = torch.device(device), dtype
        own = Schedule.from_steps(config.sampling.steps, config.sampling.shift)
        self.generator = generator
        self.experts = Experts([*experts, generator], own)
        self.generators = {_expert(i): g for i, g in enumerate(self.experts.generators)}
        if commit_generator is not None:
            self.generators[COMMIT] = commit_generator
        layers = []
        for model in self.generators.values():
            layers += model.to(self.device, dtype).eval().requires_grad_(False).join()
        # Convolutions are a quarter faster with the channels innermost.
        self.autoencoder = autoencoder.to(self.device, dtype, memory_format=torch.channels_last)
        self.frame_encoder = FrameEncoder(config, self.autoencoder, self.device, dtype)
        latent = config.latent
        self.tokens = generator.tokens(latent.height, latent.width)
        self._mean = torch.tensor(latent.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(latent.std, device=self.device)[:, None, None]
        self.side_by_side = False
        if self.device.type == "cpu":
            self.side_by_side = acceleration.share_cores(not self.last_pass_commits, dtype)
        # What runs a pass, by the name of the generator, and the decoder that serves play where there is one.
        self._passes: dict[str, Callable[..., Tensor]] = dict(self.generators)
        self._decoder: PackedDecoder | None = None
        if self.device.type == "cpu" and lay_out:
            self._pack(layers)
        choice = choose_backend(config, self.tokens, self.device, dtype, attention)
        self.attention, self.attention_findings = choice.backend, choice.findings
        self.turn = threading.Lock()
        self.noises: Callable[[Sequence[int], int, int, Sequence[int]], Tensor] = noises
        self._timesteps: dict[tuple[float, int], Tensor] = {}
        self._loaded: tuple[Any, ...] | None = None
        self.steps = steps if steps is not None else len(config.sampling.steps)
        self.schedule(self.steps)

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        steps: int | None = None,
        attention: str | None = None,
        memory: int | None = None,
    ) -> "World":
        """Loads a world by the name of a shipped or added one or by the path of its folder.

        `attention` names a backend of `world.attention`; by default the fastest right one is taken.
        `memory`: it remembers at most so many frames. Raises WorldError, naming file and mend, for anything
        missing, damaged or contradictory.
        """
        folder = find_world(name)
        config = load_config(folder / "world.toml")
        if memory is not None:
            config = cut_memory(config, memory) or config
        target = acceleration.pick_device(device)
        dtype = dtype or acceleration.pick_dtype(target)
        with checkpoint.without_memory():
            generator = Generator(config.generator)
            second = Generator(config.generator) if config.commit_weights else None
            experts = [Generator(config.generator) for _ in config.expert_weights]
            autoencoder = LightTAE(config.autoencoder)
        models = [model for model in (generator, second, *experts, autoencoder) if model is not None]
        check_size(config, models, target, dtype)
        for model, file in zip(models, config.weight_files, strict=True):
            checkpoint.load_weights(model, folder, file, target, dtype)
        world = cls(
            config, generator, autoencoder, target, dtype, steps, commit_generator=second, experts=experts,
            attention=attention,
        )  # fmt: skip
        world._loaded = folder.resolve(), device, dtype, steps, attention, memory
        kind = str(dtype).removeprefix("torch.")
        logging.getLogger("playhead").info(f"loaded the world {config.name} from {folder}: {target}, {kind}")
        return world

    def __reduce__(self) -> tuple[Callable[..., "World"], tuple[Any, ...]]:
        """Pickled is where it was loaded from, and how. Raises WorldError where it was built otherwise."""
        if self._loaded is None:
            raise WorldError(
                f"the world `{self.config.name}` was built and not loaded, so it cannot be pickled; load it "
                "from a folder"
            )
        return type(self).load, self._loaded

    def _pack(self, layers: Sequence[nn.Linear]) -> None:
        """Lays weights out for a CPU: those of `layers`, or, where a tick is one pass, all that play uses."""
        rows = self.tokens * self.config.sampling.latents_per_tick
        if not self.last_pass_commits or not packed.available(self.dtype) or not fits(self.generator):
            acceleration.pack(layers, rows)
            return
        for name, model in self.generators.items():
            self._passes[name] = PackedGenerator(model, rows)
        if self.config.frames_per_tick == 1:
            latent = self.config.latent
            self._decoder = PackedDecoder(self.autoencoder.decoder, latent.height, latent.width)

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
        """The rope table of a block whose first latent has absolute index `first`, in main memory."""
        latent = self.config.latent
        frames = range(first, first + self.config.sampling.latents_per_tick)
        return self.generator.rope_table(frames, latent.height, latent.width)

    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames uint8 `(T, H, W, 3)` to normalised latents, as `FrameEncoder.encode` has it."""
        return self.frame_encoder.encode(frames)

    def encode_clip(self, clip: np.ndarray) -> Tensor:
        """The same of a clip float32 `(T, H, W, 3)` in [0, 1]."""
        return self.frame_encoder.encode_clip(clip)

    @torch.no_grad()
    def enter(self, state: WorldState, context: Context, seeds: Sequence[int]) -> Tensor:
        """Begins anew from a context: binds the state to it, and prefills what it has of a past.

        `seeds`, one a session: those under which it will be dreamed on.

        Returns the frames to begin with, as `decode` does: the last of the past, or else the context's
        picture, or black. Raises WorldError for a context of another world.
        """
        state.restart()
        self.bind(state, context)
        if context.latents is not None:
            latents = torch.from_numpy(np.asarray(context.latents, dtype=np.float32)).to(self.device)
        elif not len(context.frames) or self.config.looks_at_picture:
            size = (self.config.frame_height, self.config.frame_width, 3)
            picture = context.frames[-1] if len(context.frames) else np.zeros(size, np.uint8)
            return torch.from_numpy(np.array(picture))[None, None]
        else:
            latents = self.encode(context.frames)
        led = self._led(context, len(latents)).to(latents.device)
        return self.prefill(state, latents[None], led[None], seeds)

    def _led(self, context: Context, count: int) -> Tensor:
        """What was held when each of the context's `count` latents came about, `(count, inputs)`."""
        inputs = self.config.generator.inputs
        rows = torch.from_numpy(np.asarray(context.actions, dtype=np.float32))
        led = torch.zeros(count, inputs)
        if rows.shape == (len(context.frames), inputs):
            known = torch.cat([led[:1], rows[:-1]])[:: max(1, -(-len(rows) // count))]
            return known if len(known) == count else led
        if context.latents is None:
            raise WorldError(
                f"the context's actions are {tuple(rows.shape)} where its {len(context.frames)} frames need "
                f"({len(context.frames)}, {inputs})"
            )
        return led  # latents may come without their frames and actions

    @torch.no_grad()
    def bind(self, state: WorldState, context: Context) -> None:
        """Has a state look at a context: computes the keys and values of its prompt or image, if need be."""
        g = self.config.generator
        if state.context is context and state.bound_prompt == state.prompt:
            return
        check_context(self.config, context)
        rows = context.prompts[state.prompt] if g.text_dim else context.features if g.image_dim else None
        if rows is not None:
            embedding = torch.from_numpy(np.asarray(rows, dtype=np.float32))[None]
            embedding = embedding.to(self.device, self.dtype).expand(state.batch, -1, -1)
            for name, model in self.generators.items():
                state.keep_context(name, model.embed_context(embedding))
        if context.condition is not None and self.config.looks_at_picture:
            z = torch.from_numpy(np.asarray(context.condition, dtype=np.float32)).to(self.device)
            mask = z.new_zeros(len(z), g.condition_channels - z.shape[1], *z.shape[2:])
            mask[0] = 1
            state.condition_source = torch.cat([mask, z], 1)
        self.label(state, [context.place] * state.batch)
        state.context, state.bound_prompt = context, state.prompt

    def label(self, state: WorldState, places: Sequence[str]) -> None:
        """Tells the generator where each session of a state is, for as long as it is not told otherwise."""
        rows = torch.tensor([self.config.label(place) for place in places], device=self.device)
        state.action[..., self.config.generator.inputs :] = rows.view(state.batch, 1, -1)

    @torch.no_grad()
    def switch_prompt(self, state: WorldState, number: int, how: str | None = None) -> None:
        """Goes on under another prompt of the state's context; nothing if there is none of that number.

        `how`: `recache` commits the last latents again under the new prompt, as LongLive does, `flush`
        forgets everything but the sink; None is the world's own way.
        """
        context = state.context
        if context is None or number == state.prompt or not 0 <= number < len(context.prompts):
            return
        state.prompt = number
        self.bind(state, context)
        if state.rest is not None:
            state.rest.restart()  # under another prompt the world moves
        cache, size = state.cache, state.latent.shape[1]
        kept = min(state.recent.shape[1], (cache.length - min(cache.sink, cache.length)) // size * size)
        cache.flush(cache.length - (0 if (how or self.config.prompt_switch) == "flush" else kept))
        if (how or self.config.prompt_switch) == "flush" or not kept:
            return
        held = state.latent.clone()
        for block in state.recent[:, -kept:].clone().split(size, 1):
            state.latent.copy_(block)
            self._begin(state)
            self._commit(state)
            state.end()
        state.latent.copy_(held)

    @torch.no_grad()
    def prefill(
        self, state: WorldState, latents: Tensor, actions: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Commits and decodes a past: latents `(B, T, C, h, w)`, actions `(B, T, buttons)` that led to each.

        T has to be a multiple of the latents a tick. Where a tick's last denoise pass commits it, that pass
        is run as play would have, on the known latents under noise of ticks before the first. Returns the
        frames of the last block, as `decode` does.
        """
        size = self.config.sampling.latents_per_tick
        if not latents.shape[1] or latents.shape[1] % size:
            raise WorldError(
                f"a context of {latents.shape[1]} latents cannot be committed in blocks of {size}"
            )
        blocks = list(zip(latents.split(size, 1), actions.split(size, 1), strict=True))
        for before, (block, action) in zip(range(len(blocks), 0, -1), blocks, strict=True):
            state.latent.copy_(block)
            self._hold(state, action)
            self.decode(state)
            if self.last_pass_commits:
                self._pass_over(state, seeds, PAST - before)
            self.commit(state)
        return state.frames

    @torch.no_grad()
    def denoise(self, state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        """Dreams the next block into `state.latent`; `actions` `(B, F, buttons)`, one seed a session."""
        schedule = self.draw(state, actions, seeds, tick)
        self._begin(state)
        key = ("denoise", schedule.sigmas, *state.places)
        state.graphs.run(key, lambda: self._denoise(state, schedule))

    def _pass_over(self, state: WorldState, seeds: Sequence[int], tick: int) -> None:
        """The last denoise pass of a tick that ended with `state.latent`, for its keys and values."""
        self._begin(state)
        own = self.experts.schedule  # whatever steps a session plays at: a past is the same for all
        last, sigma = len(own) - 1, own.sigmas[-1]
        fresh = self.noises(seeds, tick, last, state.latent.shape[1:]).to(self.device)
        x = (1 - sigma) * state.latent + sigma * fresh
        self._predict(state, x, 1000 * sigma)

    @torch.no_grad()
    def take(self, state: WorldState, actions: Tensor, latents: Tensor) -> None:
        """Puts known latents `(B, F, C, h, w)` where `denoise` would have dreamed them.

        For worlds that commit by a pass of its own: of others, what the last pass left is not known.
        """
        self._hold(state, actions, counts=True)
        self._begin(state)
        state.latent.copy_(latents)

    def draw(self, state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> Schedule:
        """Lays out what a tick is made of, its actions and its noise. Returns its noise levels."""
        self._hold(state, actions, counts=True)
        shape = state.latent.shape[1:]
        schedule = state.schedule
        first_steps = self.config.sampling.first_steps
        if first_steps and not state.cache.length:
            schedule = Schedule.from_steps(first_steps, self.config.sampling.shift)
        for step in range(len(schedule)):
            drawn = state.foreseen.get((*seeds, tick, step))
            if drawn is None:
                drawn = self.noises(seeds, tick, step, shape)
            state.noises[step].copy_(drawn, non_blocking=drawn.is_pinned())
        return schedule

    def foresee(self, state: WorldState, seeds: Sequence[int], tick: int) -> None:
        """Makes what the tick after the one under way needs whatever is held: its noise, its rope table.

        For a GPU's sake, whose host has nothing else to do until the frames arrive.
        """
        cuda = self.device.type == "cuda"
        shape = state.latent.shape[1:]
        first = state.cache.length + self.config.sampling.latents_per_tick
        found: dict[Hashable, Tensor]
        found = {(*seeds, tick, n): self.noises(seeds, tick, n, shape) for n in range(len(state.schedule))}
        found[first] = self.rope_table(first)
        state.foreseen = {k: v.pin_memory() if cuda and not v.is_cuda else v for k, v in found.items()}

    @torch.no_grad()
    def commit(self, state: WorldState) -> None:
        """Has later ticks see this one, by a pass at the context noise level that writes keys and values.

        Where the last denoise pass commits, its own are there already. What a session at rest leaves stays
        what it was (`world.rest`).
        """
        if not self.last_pass_commits:
            self._begin(state)
            state.graphs.run(("commit", *state.places), lambda: self._commit(state))
            state.remember()
        state.end()
        if self.last_pass_commits and self.device.type == "cpu":
            self._prepare(state)

    def _prepare(self, state: WorldState) -> None:
        """Does what the next tick needs and this one leaves undone, after its frames were handed over."""
        self._turn(state)
        if not state.fresh and state.decoder_ahead is None:
            state.decoder_ahead = self._ahead(state)

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

    @property
    def last_pass_commits(self) -> bool:
        """Whether a tick's last denoise pass commits it, and no pass of its own."""
        return self.config.sampling.commit == "last"

    @property
    def decoder_span(self) -> int:
        """Ticks after which the decoder's memory no longer depends on what it was."""
        return sum(isinstance(layer, MemBlock) for layer in self.autoencoder.decoder)

    @torch.no_grad()
    def picture(self, latents: np.ndarray) -> np.ndarray:
        """The last frame, uint8 `(H, W, 3)`, of latents `(T, C, h, w)`, decoded apart from any state.

        After `decoder_span` ticks it is what play shows, but for the rounding of a decode of many at once.
        """
        z = torch.from_numpy(np.array(latents)).to(self.device)[None]
        pixels, _ = self.autoencoder.decoder((z * self._std + self._mean).to(self.dtype))
        return (
            pixels[0, -1].float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        )

    def _hold(self, state: WorldState, actions: Tensor, counts: bool = False) -> None:
        """`counts`: where nothing is held, that is rest; a known past is none."""
        held = state.action[..., : self.config.generator.inputs]
        held.copy_(actions)
        if counts and state.rest is not None:
            state.rest.count(held)
        if state.memory is not None:
            state.memory.hold(state.action)

    def _begin(self, state: WorldState) -> None:
        state.begin(self.config.sampling.latents_per_tick)
        self._turn(state)

    def _turn(self, state: WorldState) -> None:
        """Has a state hold the rope table of its next block."""
        first = state.cache.length
        if state.turned != first:
            table = state.foreseen.get(first)
            if table is None:
                table = self.rope_table(first)
            state.cos_sin.copy_(table, non_blocking=table.is_pinned())
            state.turned = first

    def _ahead(self, state: WorldState) -> Memory | None:
        """What a packed decoder makes of a state's memory, before the latent is known."""
        if self._decoder is None or state.decoder_memory is None:
            return None
        return self._decoder.ahead(state.decoder_memory)

    def _predict(self, state: WorldState, x: Tensor, timestep: float, who: str | None = None) -> Tensor:
        """The flow of `x`, by `who` of the generators or by that of the timestep.

        Recorded, it stands for one pass.
        """
        who = who or _expert(self.experts.number(timestep))
        if state.passes is None:
            key = (timestep, state.batch)
            if key not in self._timesteps:
                self._timesteps[key] = torch.full(x.shape[:2], timestep, device=self.device)
            return self._pass(state, x, self._timesteps[key], who)
        passes = state.passes
        passes.latent.copy_(x)
        passes.timesteps.fill_(timestep)

        def work() -> None:
            passes.flow.copy_(self._pass(state, passes.latent, passes.timesteps, who))

        passes.graphs.run((who, *state.places), work)
        return passes.flow

    def _pass(self, state: WorldState, x: Tensor, timesteps: Tensor, who: str) -> Tensor:
        if state.condition.shape[2]:
            x = torch.cat([x, state.condition], 2)
        return self._passes[who](
            x,
            timesteps,
            state.cos_sin,
            state.cache.attend,
            state.action if self.config.generator.buttons else None,
            state.keys_values.get(who),
            state.memory.given() if state.memory is not None else None,
        )

    def _denoise(self, state: WorldState, schedule: Schedule) -> None:
        draws = state.noises[: len(schedule)].unbind(0)
        clean = denoise(lambda x, t: self._predict(state, x, t), draws, schedule)
        state.latent.copy_(clean)

    def _commit(self, state: WorldState) -> None:
        who = COMMIT if COMMIT in self.generators else None
        self._predict(state, state.committed(), self.config.sampling.context_noise, who)

    def _decode(self, state: WorldState) -> None:
        z = (state.latent * self._std + self._mean).to(self.dtype)
        if self._decoder is None or state.fresh:
            pixels, memory = self.autoencoder.decoder(z, None if state.fresh else state.decoder_memory)
            frames = pixels.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
        else:
            pictures, memory = self._decoder(z[:, 0], state.decoder_ahead or self._ahead(state))
            frames = pictures.unsqueeze(1)
        count = frames.shape[1]
        if count not in state.pictures:
            state.pictures[count] = torch.empty_like(frames, memory_format=torch.contiguous_format)
        state.pictures[count].copy_(frames)
        state.keep_decoder_memory(memory)
        state.fresh = False


def _expert(number: int) -> str:
    """What the generator of the denoise steps of that number is called."""
    return f"denoise {number}"
