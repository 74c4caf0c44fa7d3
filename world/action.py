"""Actions: what the player holds during a tick, in the words of the world that is played."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from playhead.world.errors import ActionError

if TYPE_CHECKING:  # a window and its key map open before torch is there
    from torch import Tensor


RE_ANCHOR = "re_anchor"
"""The command that returns to the scene's start without a reload; ticks and noise go on."""


def prompt_name(number: int) -> str:
    """The command that goes on under the prompt of that number, counted from 0: `prompt_1` is the first."""
    return f"prompt_{number + 1}"


def prompt_number(name: str) -> int:
    """The number of a prompt's command, counted from 0. Raises ActionError for another name."""
    start, _, number = name.rpartition("_")
    if start != "prompt" or not number.isdecimal():
        raise ActionError(f"`{name}` is no command; there are {RE_ANCHOR} and prompt_1, prompt_2, …")
    return int(number) - 1


class Action(msgspec.Struct, frozen=True):
    """The buttons held (by name) and the axes moved (name to value) during one tick."""

    buttons: frozenset[str] = frozenset()
    axes: Mapping[str, float] = {}


class ActionSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The buttons and axes a world knows, in the order in which an action is written down.

    An axis goes from -1 to 1; the generator is given `axis_scale` times that. `commands` are the buttons that
    the session obeys itself (`prompt_2`, `re_anchor`) and the generator does not see. Of a `one_hot` space
    the generator sees one button only: the first one held, or the very first where none is.
    """

    buttons: tuple[str, ...]
    axes: tuple[str, ...] = ()
    axis_scale: float = 1.0
    commands: tuple[str, ...] = ()
    one_hot: bool = False

    @property
    def seen(self) -> tuple[str, ...]:
        """The buttons that the generator sees."""
        return tuple(name for name in self.buttons if name not in self.commands)

    @property
    def inputs(self) -> int:
        """How many numbers the generator is given."""
        return len(self.seen) + len(self.axes)

    def with_prompts(self, count: int) -> "ActionSpace":
        """This space as a scene of `count` prompts has it: without the commands of those that it lacks."""
        lacking = {prompt_name(number) for number in range(count, len(self.buttons))}
        kept = tuple(name for name in self.buttons if name not in lacking)
        return msgspec.structs.replace(
            self, buttons=kept, commands=tuple(name for name in self.commands if name in kept)
        )

    def check(self, action: Action) -> None:
        """Raises ActionError for a name that this space does not have, or an axis beyond its ends."""
        unknown = sorted(action.buttons - set(self.buttons)) or sorted(set(action.axes) - set(self.axes))
        if unknown:
            known = ", ".join((*self.buttons, *self.axes)) or "none"
            raise ActionError(f"this world has no button or axis `{unknown[0]}`; it has {known}")
        for name, value in action.axes.items():
            if not -1 <= value <= 1:
                raise ActionError(f"the axis `{name}` is at {value}; it goes from -1 to 1")

    def encode(self, action: Action) -> list[float]:
        """The action as a row: its buttons as 0 or 1, then its axes."""
        self.check(action)
        return [
            *(int(name in action.buttons) for name in self.buttons),
            *(action.axes.get(name, 0.0) for name in self.axes),
        ]

    def decode(self, row: Iterable[float]) -> Action:
        """The action of a row; the inverse of `encode`. A button is held from above 0.5 on.

        Raises ActionError for another number of values, one outside 0 to 1, or an axis beyond its ends.
        """
        values = list(row)
        if len(values) != len(self.buttons) + len(self.axes):
            count = len(self.buttons) + len(self.axes)
            raise ActionError(f"an action of this world has {count} values, not {len(values)}")
        for name, value in zip((*self.buttons, *self.axes), values, strict=True):
            low = -1 if name in self.axes else 0
            if not low <= value <= 1:  # which a NaN is not either
                kind = "axis" if low else "button"
                raise ActionError(f"the {kind} `{name}` is at {value}; it goes from {low} to 1")
        held = frozenset(n for n, v in zip(self.buttons, values, strict=False) if v > 0.5)
        axes = {n: v for n, v in zip(self.axes, values[len(self.buttons) :], strict=True) if v}
        return Action(held, axes)

    def condition(self, action: Action) -> list[float]:
        """What the generator is given: the buttons that it sees as 0 or 1, then the scaled axes."""
        self.check(action)
        held = [name in action.buttons for name in self.seen]
        if self.one_hot:
            first = held.index(True) if True in held else 0
            held = [i == first for i in range(len(held))]
        axes = (self.axis_scale * action.axes.get(name, 0.0) for name in self.axes)
        return [*map(float, held), *axes]

    def tensor(self, action: Action) -> "Tensor":
        """What the generator is given, `(1, 1, inputs)` float32."""
        import torch

        return torch.tensor(self.condition(action), dtype=torch.float32)[None, None]
