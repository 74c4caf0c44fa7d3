"""Scripted actions: what to hold, tick by tick, as a line of text or as an array.

A script is a row of chords: `w*20 w+right*5 space` is w for twenty ticks, w and right together for five,
space for one. A chord is keys or buttons joined by `+`; `.` (or `idle`, `none`) is nothing held; `*n` repeats
a chord or a group in parentheses: `(w*5 d*2)*3`. A blank in a key's name is written `_`: `left_ctrl`. An axis
is moved by its value: `w+yaw=0.5`, from -1 to 1.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from playhead.world.action import Action, ActionSpace
from playhead.world.errors import ActionError

IDLE = (".", "idle", "none")
MAX_TICKS = 1_000_000
"""The longest script, about sixteen hours of play: a longer one is a slip of the pen."""

_JOINED = re.compile(r"(?<!=)\+")
"""The plus between what is held; not the sign of a number, as in `yaw=+0.5`."""
_TOKEN = re.compile(r"(?P<open>\()|(?P<item>\)|[^\s()*]+)(?P<count>\*[^\s()*]*)?|(?P<stray>\S)")


def parse_script(text: str, space: ActionSpace, aliases: Mapping[str, str]) -> list[Action]:
    """The actions of a script, one a tick. `aliases`: key names and the button that each stands for.

    Raises ActionError naming the token that is wrong and what is known.

    >>> space = ActionSpace(("forward", "turn_right"))
    >>> [sorted(a.buttons) for a in parse_script("w+turn_right .*2", space, {"w": "forward"})]
    [['forward', 'turn_right'], [], []]
    """
    chords: dict[str, Action] = {}  # a script repeats few chords: each is looked up once
    groups: list[list[Action]] = [[]]
    for token in _TOKEN.finditer(text.removeprefix("\ufeff")):  # a byte-order mark of the file it came from
        if token["stray"]:
            raise ActionError("a script has a `*` with no chord before it: write w*20, without blanks")
        if token["open"]:
            groups.append([])
            continue
        item = token["item"]
        if item != ")":
            if item not in chords:
                chords[item] = _chord(item, space, aliases)
            part = [chords[item]]
        elif len(groups) > 1:
            part = groups.pop()
        else:
            raise ActionError("a script closes a parenthesis `)` that it did not open")
        count = _count(token)
        if len(groups[-1]) + len(part) * count > MAX_TICKS:
            raise ActionError(f"a script is longer than {MAX_TICKS} ticks at `{token[0]}`; make it shorter")
        groups[-1] += part * count
    if len(groups) > 1:
        raise ActionError("a script opens a parenthesis `(` that it does not close")
    return groups[0]


def read_actions(path: Path, space: ActionSpace) -> list[Action]:
    """The actions of an `.npy` array `(N, buttons)` of numbers from 0 to 1, held from above 0.5 on.

    A world's axes, from -1 to 1, may follow the buttons. Raises ActionError naming the file and what it has
    to be.
    """
    try:
        with path.open("rb") as file:
            return decode_actions(file, space, str(path))
    except FileNotFoundError:
        raise ActionError(f"{path} is missing: it has to be an .npy of actions") from None
    except OSError as error:
        raise _unreadable(str(path), error) from None


def decode_actions(file: BinaryIO, space: ActionSpace, named: str) -> list[Action]:
    """As `read_actions`, of an open file. `named`: what a message calls it."""
    buttons, width = len(space.buttons), len(space.names)
    try:
        rows = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise _unreadable(named, error) from None
    if rows.dtype.kind not in "buif" or rows.ndim != 2 or rows.shape[1] not in (buttons, width):
        shapes = " or ".join(f"(N, {count})" for count in dict.fromkeys((buttons, width)))
        raise ActionError(
            f"{named} holds {rows.dtype} {rows.shape}; it has to be uint8, bool or float {shapes}"
        )
    if len(rows) > MAX_TICKS:
        raise ActionError(f"{named} has {len(rows)} rows; a script has at most {MAX_TICKS} ticks")
    wrong = ~((rows[:, :buttons] >= 0) & (rows[:, :buttons] <= 1)).all(axis=1)  # a NaN is wrong too
    if wrong.any():
        raise ActionError(
            f"{named}: row {wrong.argmax()} has a value outside 0 to 1; a button is held or not"
        )
    wrong = ~((rows[:, buttons:] >= -1) & (rows[:, buttons:] <= 1)).all(axis=1)
    if wrong.any():
        raise ActionError(f"{named}: row {wrong.argmax()} has an axis outside -1 to 1")
    resting = [0.0] * (width - rows.shape[1])
    return [space.decode([*row, *resting]) for row in rows.tolist()]


def load_actions(script: str, space: ActionSpace, aliases: Mapping[str, str]) -> list[Action]:
    """The actions of a script or, where `script` ends in `.npy`, of that file."""
    if script.endswith(".npy"):
        return read_actions(Path(script), space)
    return parse_script(script, space, aliases)


class ScriptSource:
    """A source of actions, like a keyboard, that plays a list of them and then holds nothing."""

    def __init__(self, actions: Sequence[Action]) -> None:
        self._actions = actions
        self._next = 0

    @property
    def done(self) -> bool:
        """Whether every action has been played."""
        return self._next >= len(self._actions)

    def sample(self) -> Action:
        """What is held during the coming tick."""
        if self.done:
            return Action()
        self._next += 1
        return self._actions[self._next - 1]


def _unreadable(named: str, error: BaseException) -> ActionError:
    reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return ActionError(f"{named} is no readable .npy ({reason}); save it again with numpy.save")


def _chord(chord: str, space: ActionSpace, aliases: Mapping[str, str]) -> Action:
    if chord in IDLE and chord not in space.buttons and chord not in aliases:
        return Action()
    values: dict[str, float] = {}
    for name in _JOINED.split(chord):
        axis, equals, value = name.partition("=")
        if equals and axis in space.axes:
            values[axis] = _value(value, chord)
        else:
            values[_button(name, chord, space, aliases)] = 1.0
    return space.action(values)


def _value(text: str, chord: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1 <= value <= 1:
        raise ActionError(f"`{text}` in `{chord}` is no place on an axis; it goes from -1 to 1")
    return value


def _button(name: str, chord: str, space: ActionSpace, aliases: Mapping[str, str]) -> str:
    button = name if name in space.buttons else aliases.get(name, aliases.get(name.replace("_", " ")))
    if button not in space.buttons:
        keys = [key.replace(" ", "_") for key, held in aliases.items() if held in space.buttons]
        raise ActionError(
            f"`{name}` in `{chord}` is no key or button of this world; it has the buttons "
            f"{', '.join(space.buttons)}"
            + (f" and the keys {', '.join(keys)}" if keys else "")
            + (f"; axes are moved by {', '.join(f'{axis}=0.5' for axis in space.axes)}" if space.axes else "")
        )
    return button


def _count(token: re.Match[str]) -> int:
    if token["count"] is None:
        return 1
    digits = token["count"][1:]
    if not re.fullmatch("[0-9]{1,7}", digits) or not 1 <= int(digits) <= MAX_TICKS:
        raise ActionError(f"`{token[0]}` has no count that is a whole number from 1 to {MAX_TICKS}")
    return int(digits)
