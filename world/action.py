"""Actions: what the player holds during a tick, in the words of the world that is played."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
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


class Action(msgspec.Struct, frozen=True, gc=False):
    """The buttons held (by name) and the axes moved (name to value) during one tick.

    Python's collector looks at none of them: there is one for each tick that is remembered.
    """

    buttons: frozenset[str] = frozenset()
    axes: Mapping[str, float] = {}

    def shared(self) -> "Action":
        """The same action; those that move nothing are one for each chord: ticks that are kept take less."""
        return self if self.axes else _chord(frozenset(self.buttons))

    @property
    def idle(self) -> bool:
        """Whether nothing is held or moved."""
        return not self.buttons and not self.axes

    @property
    def moves(self) -> bool:
        """Whether it moves anything by an amount, which is another one each tick; else it only holds."""
        return bool(self.axes)

    def holds(self, button: str) -> bool:
        return button in self.buttons

    def plus(self, other: "Action") -> "Action":
        """Both at once: buttons together, axes added up as far as they go."""
        axes = dict(self.axes)
        for name, value in other.axes.items():
            axes[name] = max(-1.0, min(1.0, axes.get(name, 0.0) + value))
        return Action(self.buttons | other.buttons, axes)

    def since(self, before: "Action") -> "Action":
        """What is new in it after another one: the buttons pressed anew, and all that it moves."""
        return Action(self.buttons - before.buttons, self.axes)

    def in_words(self, digits: int = 1) -> tuple[str, ...]:
        """What is held and how far the axes are moved, each in a word or two."""
        axes = (f"{axis} {value:+.{digits}f}" for axis, value in sorted(self.axes.items()))
        return (*sorted(self.buttons), *axes)

    def to_json(self) -> str:
        """As text: `[["forward"],{"look":0.5}]`."""
        return msgspec.json.encode([sorted(self.buttons), dict(self.axes)]).decode()

    @classmethod
    def from_json(cls, text: str) -> "Action":
        """The inverse of `to_json`. Raises msgspec's errors for another text."""
        buttons, axes = msgspec.json.decode(text, type=tuple[list[str], dict[str, float]])
        return cls(frozenset(buttons), axes)


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
    def names(self) -> tuple[str, ...]:
        """All that an action may hold or move, in the order of its row."""
        return (*self.buttons, *self.axes)

    @property
    def lows(self) -> tuple[int, ...]:
        """The least value of each of the `names`; the greatest is 1."""
        return (0,) * len(self.buttons) + (-1,) * len(self.axes)

    @property
    def binary(self) -> bool:
        """Whether all there is is held or not."""
        return not self.axes

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
        unknown = action.buttons.difference(self.buttons) or action.axes.keys() - self.axes
        if unknown:
            known = ", ".join(self.names) or "none"
            raise ActionError(f"this world has no button or axis `{min(unknown)}`; it has {known}")
        for name, value in action.axes.items():
            if not -1 <= value <= 1:
                raise ActionError(f"the axis `{name}` is at {value}; it goes from -1 to 1")

    def action(self, values: Mapping[str, float]) -> Action:
        """The action of values by name. A button is held from above 0.5 on; an axis at 0 is not moved."""
        held = frozenset(name for name in self.buttons if values.get(name, 0.0) > 0.5)
        return Action(held, {name: value for name in self.axes if (value := values.get(name, 0.0))})

    def commanded(self, action: Action) -> frozenset[str]:
        """The commands among what is held."""
        return action.buttons.intersection(self.commands)

    def seen_row(self, action: Action) -> list[int]:
        """The buttons that the generator sees, as 0 or 1."""
        return [int(name in action.buttons) for name in self.seen]

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
        if len(values) != len(self.names):
            raise ActionError(f"an action of this world has {len(self.names)} values, not {len(values)}")
        for name, low, value in zip(self.names, self.lows, values, strict=True):
            if not low <= value <= 1:  # which a NaN is not either
                kind = "axis" if low else "button"
                raise ActionError(f"the {kind} `{name}` is at {value}; it goes from {low} to 1")
        return self.action(dict(zip(self.names, values, strict=True)))

    def condition(self, action: Action) -> list[float]:
        """What the generator is given: the buttons that it sees as 0 or 1, then the scaled axes."""
        if action.axes:
            return self._condition(action)
        return [*_condition_of_held(self, frozenset(action.buttons))]

    def _condition(self, action: Action) -> list[float]:
        self.check(action)
        held = self.seen_row(action)
        if self.one_hot:
            first = held.index(1) if 1 in held else 0
            held = [int(i == first) for i in range(len(held))]
        axes = (self.axis_scale * action.axes.get(name, 0.0) for name in self.axes)
        return [*map(float, held), *axes]

    def tensor(self, *actions: Action) -> "Tensor":
        """What the generator is given of each of some actions, `(n, 1, inputs)` float32."""
        import torch

        rows = [self.condition(action) for action in actions]
        return torch.tensor(rows, dtype=torch.float32).view(len(rows), 1, -1)


@lru_cache(4096)
def _chord(buttons: frozenset[str]) -> Action:
    return Action(buttons)


@lru_cache(4096)
def _condition_of_held(space: ActionSpace, buttons: frozenset[str]) -> tuple[float, ...]:
    """What the generator is given where only buttons are held, which is worked out once for each chord."""
    return tuple(space._condition(Action(buttons)))
