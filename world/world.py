"""A world: a loaded generator and autoencoder, made ready for a device. Its ticks are `world.ticks`."""

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from playhead.world import acceleration, low_bit
from playhead.world.attention_check import choose_backend
from playhead.world.config import WorldConfig, load_config
from playhead.world.decoding import FrameDecoder, load_decoder
from playhead.world.encoding import FrameEncoder
from playhead.world.errors import WorldError
from playhead.world.experts import Experts
from playhead.world.flow import Flow, expert_name
from playhead.world.fused.choice import choose_fused, compiling
from playhead.world.generator import Generator
from playhead.world.lighttae import Decoder, LightTAE
from playhead.world.loading import load_models
from playhead.world.low_bit_cache import check_cache, choose_reader
from playhead.world.memory import cut_memory
from playhead.world.noise import noises
from playhead.world.offload.memory_budget import MemoryBudget, told
from playhead.world.offload.placing import place_generators
from playhead.world.offload.plan import OffloadPlan
from playhead.world.parallel.ranks import Ranks
from playhead.world.parallel.split import Split
from playhead.world.sampler import Schedule
from playhead.world.size import MAX_STEPS
from playhead.world.state import StateLayout, WorldState
from playhead.world.ticks import COMMIT, Ticks
from playhead.world.wide.passes import WidePasses, why_not_wide
from playhead.world.wide.wide_pass import PassModel
from playhead.world.world_folders import find_world


class World(Ticks):
    """A generator, an autoencoder and their configuration on one device.

    `generators`, by name: each step's expert (`generator` is the last, or the only one), and `COMMIT` where
    the commit has weights of its own. `side_by_side`: the commit and the decode of a tick gain from running
    in two threads. `turn`: held by the session whose tick is under way, where several threads play sessions
    of this world. `commits`: its thread for commits beside decodes. `noises` draws a tick's noise:
    `world.noise.noises`, or `PrefetchedNoise` of it. `lay_out`: on a CPU weights are laid out for its
    kernels, which changes sums in their last bits. `precision`: of the generators' large layers, one of
    `low_bit.PRECISIONS`, or None for the full one; `cache`: the same of the KV cache, as `reader` reads it.
    `plan`: which blocks are offloaded, None for none; they take turns in `buffers`. `decoder`: that of its
    decoders which shows what is dreamed, in place of its autoencoder's; `shown_on`: the device of whichever
    does, where that is another. `split`: where `ranks` play together, what of a pass is this one's; all but
    the first decode nothing. `wide`: the passes of one width that its sessions go by, None where each has
    passes of its own.
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
        precision: str | None = None,
        fused: bool | None = None,
        decoder: FrameDecoder | None = None,
        plan: OffloadPlan | None = None,
        cache: str | None = None,
        shown_on: torch.device | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.device, self.dtype = torch.device(device), dtype
        own = Schedule.from_steps(config.sampling.steps, config.sampling.shift)
        self.generator = generator
        self.experts = Experts([*experts, generator], own)
        self.generators = {expert_name(i): g for i, g in enumerate(self.experts.generators)}
        if commit_generator is not None:
            self.generators[COMMIT] = commit_generator
        self.precision, self.plan = precision, plan
        models = [*self.generators.values()]
        self.buffers, layers = place_generators(models, plan, self.device, dtype, precision)
        self.autoencoder = acceleration.channels_innermost(autoencoder, self.device, dtype)
        self.frame_encoder = FrameEncoder(config, self.autoencoder, self.device, dtype)
        self.shown_on = shown_on if shown_on != self.device else None
        where = self.shown_on or self.device
        shows = acceleration.channels_innermost(self.autoencoder.decoder, where, dtype)
        self.frame_decoder = decoder or FrameDecoder(config, shows, where, dtype)
        self.tokens = generator.tokens(config.latent.height, config.latent.width)
        self.split = Split(config, self.tokens, ranks, attention, cache) if ranks is not None else None
        shares = 1 if self.split is None else self.split.head_share
        cpu = self.device.type == "cpu"
        alone = cpu and ranks is None and self.shown_on is None
        self.side_by_side = alone and not self.last_pass_commits and acceleration.cores() > 1
        size = 1 if ranks is None else ranks.size
        if cpu:
            self._threads = acceleration.tick_threads(self.side_by_side, dtype, size)
        else:
            self._threads = acceleration.host_threads(where.type == "cpu", size)
        self._flow = Flow(self.generators, self.experts, self.split)
        if cpu and lay_out:
            with acceleration.threads(self._threads):  # how a kernel has weights may hang on who multiplies
                self._pack(layers)
        decodes = ranks is None or ranks.rank == 0
        ahead = fused is not False and plan is None  # within a budget there may be no room for it
        shown = self.frame_decoder.network if decodes and where == self.device else None
        tiny = shown if isinstance(shown, Decoder) else None
        with compiling(generator, config, tiny, dtype) if ahead else nullcontext():
            choice = choose_backend(config, self.tokens, self.device, dtype, attention, shares)
            self.attention, self.attention_findings = choice.backend, choice.findings
            self.cache = cache
            self.reader = choose_reader(config, self.tokens, self.device, dtype, shares) if cache else None
        self.fused = choose_fused(generator, config, self.device, dtype, fused, recorded=plan is None)
        if not cpu:
            self._flow.fuse(self.fused.fused)
        self.fused_decoder = self.frame_decoder.fuse(fused if decodes else False, tight=plan is not None)
        if self.device.type == "cuda":  # what was tried takes more than play does
            if plan is not None:
                self._warn_of_decodes(plan)
                gc.collect()  # an error on the way may hold it in a circle
            torch.cuda.empty_cache()
        for model in models:
            model.shares = self.split
        self.turn = threading.Lock()
        self.wide: WidePasses | None = None
        self.commits = ThreadPoolExecutor(1, "commit")
        self.noises: Callable[[Sequence[int], int, int, Sequence[int]], Tensor] = partial(
            noises, device=self.device
        )
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
        precision: str | None = None,
        fused: bool | None = None,
        decoder: str | None = None,
        budget: MemoryBudget | None = None,
        cache: str | None = None,
        decoder_device: str | None = None,
        ranks: Ranks | None = None,
    ) -> "World":
        """Loads a world by the name of a shipped or added one or by the path of its folder.

        `attention`: a backend of `world.attention`, else the fastest right one. `memory`: it remembers at
        most so many frames. `precision`: `fp8`, `int8` or `nvfp4` (`world.low_bit`); `cache`: `fp8`.
        `fused`: whether small operations and decodes are (`world.fused`), else where that is right and
        faster. `budget`: what it may take of memory, for which blocks are offloaded. `decoder`: one of the
        world's; `decoder_device`: where whichever shows the frames is, else on `device`. `ranks`: those that
        play it together (`engine.parallel`). Raises WorldError, naming file and mend, for anything missing,
        damaged or contradictory, and for a budget that cannot be met.
        """
        folder = find_world(name)
        config = load_config(folder / "world.toml")
        if memory is not None:
            config = cut_memory(config, memory) or config
        target = acceleration.pick_device(device)
        dtype = dtype or acceleration.pick_dtype(target)
        low_bit.check_precision(precision, target)
        if decoder and budget is not None:  # whose memory no budget counts
            raise WorldError("--vram and --ram do not go with --decoder; leave one of them out")
        shown_on = target if decoder_device is None else acceleration.pick_device(decoder_device)
        chosen = load_decoder(folder, config, decoder, shown_on, dtype) if decoder else None
        check_cache(cache, attention)
        shares = 1 if ranks is None else ranks.size
        found = load_models(config, folder, target, dtype, precision, budget, cache, shares, fused)
        world = cls(
            config, found.generator, found.autoencoder, target, dtype, steps, commit_generator=found.commit,
            experts=found.experts, plan=found.plan, attention=attention, precision=precision, fused=fused,
            decoder=chosen, cache=cache, shown_on=shown_on, ranks=ranks,
        )  # fmt: skip
        given = attention, memory, precision, fused, decoder, budget, cache, decoder_device
        if ranks is None:
            world._loaded = folder.resolve(), device, dtype, steps, *given
        return world

    @classmethod
    def from_pretrained(cls, repo: str, **options: Any) -> "World":  # noqa: ANN401 - those of `load`
        """Loads a world from the hub, by `OWNER/REPO`, fetched once. Raises as `fetch_world` and `load`."""
        from playhead.world.hub_worlds import fetch_world

        return cls.load(fetch_world(repo), **options)

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
        if self.plan is not None:
            acceleration.pack(layers, rows, each_time=True)
            return
        if self.split is not None:
            acceleration.pack(layers, rows // self.split.ranks.size)
            return
        given = layers, rows, self.dtype, self.last_pass_commits, self.precision is not None
        if self._flow.pack(*given) and self.config.frames_per_tick == 1:
            self.frame_decoder.pack()

    def share_cores(self) -> None:
        """Gives torch the threads that a tick of this world is fastest with, for the whole process.

        Whoever plays calls it, on the thread that loaded the world and before the first tick; nothing else
        here touches the process.
        """
        torch.set_num_threads(self._threads)

    def _warn_of_decodes(self, plan: OffloadPlan) -> None:
        """Says so where decodes take more memory than a plan counts on."""
        more, why = plan.needs.plain_decode, self.fused_decoder.finding
        if more and self.frame_decoder.fused is None and self.shown_on is None:
            said = f"decodes are not fused here ({why}), and take up to {told(more)} more than was counted on"
            logging.getLogger("playhead").warning(said)

    def schedule(self, steps: int) -> Schedule:
        """The noise levels of a tick of `steps` denoise steps. Raises WorldError for an impossible count."""
        if not 1 <= steps <= MAX_STEPS:
            raise WorldError(f"a tick needs 1 to {MAX_STEPS} denoise steps, not {steps}; try --steps 2")
        sampling = self.config.sampling
        return Schedule.from_steps(sampling.steps_for(steps), sampling.shift)

    def widen(self, width: int) -> None:
        """Has sessions that begin from now on go by passes of `width` rows, alone and in company; 0: not.

        Raises WorldError for a world that cannot (`world.wide`).
        """
        model = PassModel(self._layout(), self._flow, self.frame_decoder, lambda: self.schedule(self.steps))
        self.wide = WidePasses(model, width) if width else None

    @property
    def why_not_wide(self) -> str:
        """Why it cannot have wide passes, in words; empty where it can."""
        return why_not_wide(self._layout(), self.frame_decoder)

    def new_state(self, batch: int = 1) -> WorldState:
        """Allocates the state of `batch` sessions that step together."""
        if self.wide is not None and batch == 1:
            return self.wide.row()
        return WorldState.allocate(self._layout(), batch, self.schedule(self.steps))

    def _layout(self) -> StateLayout:
        recorded = None if self.plan is None else self.plan.recorded
        if self.split is not None and not self.split.ranks.recordable:
            recorded = "nothing"
        given = self.config, self.tokens, self.device, self.dtype, self.attention, recorded, self.reader
        return StateLayout(*given, split=self.split, shown_on=self.shown_on)

    @property
    def steady(self) -> bool:
        """Whether the ring of a session's cache is steady (`world.steady_ring`)."""
        return self._layout().steady

    def plain(self) -> AbstractContextManager[None]:
        """Meanwhile no small operation of a pass is fused, as whoever looks into its layers needs it."""
        return self._flow.plain()

    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames uint8 `(T, H, W, 3)` to normalised latents, as `FrameEncoder.encode` has it."""
        return self.frame_encoder.encode(frames)

    def encode_clip(self, clip: np.ndarray) -> Tensor:
        """The same of a clip float32 `(T, H, W, 3)` in [0, 1]."""
        return self.frame_encoder.encode_clip(clip)

    @property
    def decoder_span(self) -> int:
        """Ticks after which the decoder's memory no longer depends on what it was."""
        return self.frame_decoder.span

    def picture(self, latents: np.ndarray) -> np.ndarray:
        """The last frame of latents `(T, C, h, w)`, as `FrameDecoder.picture` has it."""
        return self.frame_decoder.picture(latents)
