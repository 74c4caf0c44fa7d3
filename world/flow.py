"""The flow of a state's noisy latents: which of a world's generators serves a pass, and what it is given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from playhead.world import acceleration, packed
from playhead.world.experts import Experts
from playhead.world.fused.fused_generator import FusedGenerator
from playhead.world.generator import Generator
from playhead.world.packed_generator import PackedGenerator, fits
from playhead.world.parallel.split import Split
from playhead.world.state import WorldState


def expert_name(number: int) -> str:
    """What the generator of the denoise steps of that number is called."""
    return f"denoise {number}"


class Flow:
    """The passes of `generators`, those of `experts` among them, by name.

    `passes`: what runs each, the generator itself or the same laid out for a CPU. `fused`: whether those are
    of a GPU's kind, which are given the caches themselves. `split`: where other ranks compute a part of each.
    """

    def __init__(
        self, generators: Mapping[str, Generator], experts: Experts, split: Split | None = None
    ) -> None:
        self.passes: dict[str, Callable[..., Tensor]] = dict(generators)
        self.fused = False
        self._generators, self._experts, self._split = generators, experts, split
        self._told = bool(experts.last.config.buttons)
        self._timesteps: dict[tuple[float, int], Tensor] = {}

    def may_pack(self, dtype: torch.dtype) -> bool:
        """Whether all weights may be laid out for a CPU: not every generator and processor allows that."""
        return packed.available(dtype) and fits(self._experts.last)

    def pack(
        self, layers: Sequence[nn.Linear], rows: int, dtype: torch.dtype, whole: bool, low_bit: bool = False
    ) -> bool:
        """Lays weights out for a CPU, for passes of `rows` tokens: those of `layers` or, if `whole`, all.

        Returns whether all may be; those that are `low_bit` stay as they are.
        """
        if not whole or not self.may_pack(dtype):
            acceleration.pack(layers, rows)
            return False
        if not low_bit:
            self.passes = {name: PackedGenerator(model, rows) for name, model in self._generators.items()}
        return True

    def fuse(self, wanted: bool = True) -> None:
        """Has the small operations of all passes fused, or not."""
        self.fused = wanted
        self.passes = {name: FusedGenerator(g) if wanted else g for name, g in self._generators.items()}

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Small operations are done one by one meanwhile: layers are given numbers not rounded yet."""
        kept = self.passes, self.fused
        self.fuse(False)
        try:
            yield
        finally:
            self.passes, self.fused = kept

    def predict(self, state: WorldState, x: Tensor, timestep: float, who: str | None = None) -> Tensor:
        """The flow of `x`, by `who` of the generators or by that of the timestep.

        Recorded, it stands for one pass.
        """
        who = who or expert_name(self._experts.number(timestep))
        if state.passes is None:
            key = (timestep, state.batch)
            if key not in self._timesteps:
                self._timesteps[key] = torch.full(x.shape[:2], timestep, device=x.device)
            return self._pass(state, x, self._timesteps[key], who)
        passes = state.passes
        passes.latent.copy_(x)
        passes.timesteps.fill_(timestep)

        def work() -> None:
            passes.flow.copy_(self._pass(state, passes.latent, passes.timesteps, who))

        offloaded = self._generators[who].offloaded
        with offloaded.ready() if offloaded is not None else nullcontext():
            if passes.full and not state.cache.full:
                work()
            else:
                passes.graphs.run((who, *state.graph_key), work)
        return passes.flow

    def _pass(self, state: WorldState, x: Tensor, timesteps: Tensor, who: str) -> Tensor:
        if state.condition.shape[2]:
            x = torch.cat([x, state.condition], 2)
        cache = state.cache if self._split is None else self._split.exchange(state.cache)
        return self.passes[who](
            x,
            timesteps,
            state.cos_sin,
            cache if self.fused else cache.attend,
            state.action if self._told else None,
            state.keys_values.get(who),
            state.memory if self.fused or state.memory is None else state.memory.given(),
        )
