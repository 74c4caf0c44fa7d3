"""Actions: what the player holds during a tick, in the words of the world that is played."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from world.errors import ActionError

if TYPE_CHECKING:  # a window and its key map open before torch is there
    from torch import Tensor


class Action(msgspec.Struct, frozen=True):
    """The buttons held (by name) and the axes moved (name to value) during one tick."""

    buttons: frozenset[str] = frozenset()
    axes: Mapping[str, float] = {}


class ActionSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The buttons a world knows, in the order of its multi-hot input."""

    buttons: tuple[str, ...]

    def check(self, action: Action) -> None:
        """Raises ActionError for a name that this space does not have."""
        unknown = sorted(action.buttons - set(self.buttons)) or sorted(action.axes)
        if unknown:
            raise ActionError(
                f"this world has no button or axis `{unknown[0]}`; it has {', '.join(self.buttons)}"
            )

    def encode(self, action: Action) -> list[int]:
        """The multi-hot vector of an action."""
        self.check(action)
        return [int(name in action.buttons) for name in self.buttons]

    def decode(self, row: Iterable[float]) -> Action:
        """The action of a multi-hot vector; the inverse of `encode`."""
        values = list(row)
        if len(values) != len(self.buttons):
            raise ActionError(f"an action of this world has {len(self.buttons)} values, not {len(values)}")
        return Action(frozenset(n for n, v in zip(self.buttons, values, strict=True) if v > 0.5))

    def tensor(self, action: Action) -> "Tensor":
        """`(1, 1, buttons)` float32."""
        import torch

        return torch.tensor(self.encode(action), dtype=torch.float32)[None, None]
