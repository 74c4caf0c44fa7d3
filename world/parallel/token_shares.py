"""What a generator asks of whoever has its tokens go through the blocks on several devices."""

from typing import Protocol

from torch import Tensor


class TokenShares(Protocol):
    """Which tokens are computed here."""

    def own(self, x: Tensor) -> Tensor:
        """Those of this device, `(B, F, n, D)`, of all tokens `(B, F, N, D)`."""

    def whole(self, x: Tensor) -> Tensor:
        """All tokens, from this device's and the others'."""
