"""Rest: what stands still is remembered as it was.

While nothing is held nothing changes, but each tick errs by a little, and where the picture stands still one
error comes to lie on the other: a world left alone for seconds dissolves into patterns. So after
`WorldConfig.rest_after` ticks in which nothing is held, what is committed is no longer what was dreamed, but
the latent of the last tick before, over and over. What is dreamed is shown as ever; it only leaves no trace.
As soon as something is held, it does again.

That is for worlds in which nothing of weight happens by itself. Sink frames keep a long rollout at its start
(StreamingLLM, Xiao et al. 2023; LongLive); this holds it to where it came to rest, as long as it rests.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Rest:
    """For how many ticks each session of a batch has held nothing, and what was committed of it last.

    `ticks` int64 `(B)`, `kept` like `latent` `(B, F, C, h, w)`; on its device, overwritten in place.
    """

    def __init__(self, after: int, latent: Tensor) -> None:
        self.after = after
        self.ticks = torch.zeros(len(latent), dtype=torch.int64, device=latent.device)
        self.kept = torch.zeros_like(latent)

    @classmethod
    def beside(cls, rests: Sequence["Rest"]) -> "Rest":
        """Those of several batches, side by side; a copy."""
        kept = torch.cat([rest.kept for rest in rests])
        joint = cls(rests[0].after, kept)
        joint.kept, joint.ticks = kept, torch.cat([rest.ticks for rest in rests])
        return joint

    def count(self, held: Tensor) -> None:
        """Takes note of what is held `(B, F, inputs)` during the tick that begins."""
        self.ticks.add_(1).mul_(held.flatten(1).any(1).logical_not())

    def committed(self, latent: Tensor) -> Tensor:
        """What is to be committed of a tick that dreamed `latent`; twice the same if asked twice."""
        resting = (self.ticks > self.after)[:, None, None, None, None]
        self.kept.copy_(torch.where(resting, self.kept, latent))
        return self.kept

    def restart(self) -> None:
        """Nobody rests from here on."""
        self.ticks.zero_()

    def state(self) -> dict[str, Tensor]:
        return {"ticks": self.ticks.clone(), "kept": self.kept.clone()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.ticks.copy_(state["ticks"])
        self.kept.copy_(state["kept"])
