"""Experts: one generator for every noise level, or one for each denoise step's share of them.

A mixture of experts over time, as in Phased DMD (Fan et al. 2025, arXiv 2510.27684): step i's expert serves
the levels from its own down to the next step's, the last one all below, the commit's among them. Which one
serves a pass follows from its timestep, a plain number, so nothing asks the device.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from playhead.world.generator import Generator
from playhead.world.sampler import Schedule


class Experts(nn.Module):
    """`generators`, highest levels first: a single one, or as many as `schedule` has steps."""

    def __init__(self, generators: Sequence[Generator], schedule: Schedule) -> None:
        super().__init__()
        if len(generators) not in (1, len(schedule)):
            raise ValueError(f"{len(generators)} experts do not share out {len(schedule)} steps")
        self.schedule = schedule
        self.generators = nn.ModuleList(generators)
        self.bounds = schedule.sigmas[1:] if len(generators) > 1 else ()
        """The sigmas at and below which the next expert serves."""

    @property
    def last(self) -> Generator:
        """That of the lowest levels, which commits too."""
        return self.generators[-1]  # type: ignore[return-value]

    def twin(self) -> "Experts":
        """Another model of the same weights, neither compiled nor joined."""
        made = Experts([Generator(g.config) for g in self.generators], self.schedule)  # type: ignore[arg-type]
        made.load_state_dict(self.state_dict())
        return made.to(self.last.head.head.weight.device)

    def number(self, timestep: float) -> int:
        """Which expert serves a pass at `timestep`, 0 to 1000."""
        return sum(timestep <= 1000 * bound for bound in self.bounds)

    def whole(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A state dict of all experts, out of each one's by its own keys: the inverse of `part`."""
        return {f"generators.{i}.{key}": value for i, part in enumerate(parts) for key, value in part.items()}

    def part(self, weights: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        """The weights of one expert, by its own keys, out of a state dict of all."""
        start = f"generators.{number}."
        return {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}

    def at(self, timestep: float) -> Generator:
        return self.generators[self.number(timestep)]  # type: ignore[return-value]

    def numbers(self, sigmas: Tensor) -> Tensor:
        """Which expert serves each of `sigmas`, int64 of the same shape."""
        found = sigmas.new_zeros(sigmas.shape).long()
        for bound in self.bounds:
            found += sigmas <= bound
        return found
