"""A key map: which keys hold which button of a world, and which call which function of the window.

It is data, a readable TOML file: see `keymaps/freedoom.toml`. Keys have pygame's names there, and are
pygame's key codes from here on.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec
import pygame

from playhead.controls.gamepad_names import GAMEPAD_NAMES
from playhead.world.action import ActionSpace
from playhead.world.errors import ActionError
from playhead.world.tomlfile import read_toml

SHIPPED = Path(__file__).parent / "keymaps"
DEFAULT = SHIPPED / "freedoom.toml"

FUNCTIONS = {
    "pause": "pause and go on",
    "single_step": "play a single tick",
    "slower": "slow motion",
    "faster": "faster again",
    "scrub_back": "hold: back through what was played",
    "scrub_forward": "hold: forward through it",
    "undo_second": "undo the last second",
    "bookmark": "bookmark this moment",
    "branches": "branches and bookmarks",
    "restart": "restart the scene",
    "new_seed": "restart with a new seed",
    "next_scene": "next scene",
    "previous_scene": "previous scene",
    "more_steps": "more denoise steps",
    "fewer_steps": "fewer denoise steps",
    "auto_steps": "steps that keep the rate",
    "hold": "stand still while nothing is held",
    "control": "give the control, take it back",
    "hud": "show or hide the HUD",
    "help": "show or hide this help",
    "fullscreen": "fullscreen",
    "screenshot": "save a screenshot",
    "quit": "quit",
}
"""The window's functions, and what each does."""

Names = Mapping[str, tuple[str, ...]]
Code = TypeVar("Code", int, str)


class AxisKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys that push an axis to -1 and to 1 while they are held."""

    negative: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()


class Mouse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which axes the mouse moves, right and up being positive; empty names for none.

    At `pixels_per_second` an axis is at its end.
    """

    x: str = ""
    y: str = ""
    pixels_per_second: float = 600.0
    invert_x: bool = False
    invert_y: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(name for name in (self.x, self.y) if name)


NO_MOUSE = Mouse()


class KeymapFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tables of a key map's file. Without a `[window]` the shipped one counts."""

    buttons: dict[str, tuple[str, ...]]
    axes: dict[str, AxisKeys] = {}
    mouse: Mouse = Mouse()
    gamepad: dict[str, tuple[str, ...]] = {}
    window: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Keymap:
    """A checked key map: button or function to key names, in the file's order."""

    path: Path
    buttons: Names
    gamepad: Names
    window: Names
    axes: Mapping[str, AxisKeys] = field(default_factory=dict)
    mouse: Mouse = NO_MOUSE

    def check(self, space: ActionSpace) -> None:
        """Raises ActionError for a button or axis that a world of this action space does not have."""
        for name in (*self.axes, *self.mouse.axes):
            if name not in space.axes:
                raise ActionError(
                    f"{self.path}: [axes] or [mouse] names `{name}`, but this world's axes are "
                    f"{', '.join(space.axes) or 'none'}; correct it there, or give another file by --keys"
                )
        for table, names in (("buttons", self.buttons), ("gamepad", self.gamepad)):
            for name in names:
                if name not in space.buttons:
                    raise ActionError(
                        f"{self.path}: [{table}] names `{name}`, but this world's buttons are "
                        f"{', '.join(space.buttons)}; correct it there, or give another file by --keys"
                    )

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Key names and the button that each holds, as scripts may name them."""
        return {key: button for button, keys in self.buttons.items() for key in keys}

    @cached_property
    def held_by_key(self) -> dict[int, frozenset[str]]:
        """Key codes and the buttons that each holds."""
        return _invert(self.buttons, key_code)

    @cached_property
    def pushed_by_key(self) -> dict[int, tuple[str, float]]:
        """Key codes, and the axis and the end to which each pushes it."""
        ends = [(axis, -1.0, keys.negative) for axis, keys in self.axes.items()]
        ends += [(axis, 1.0, keys.positive) for axis, keys in self.axes.items()]
        return {key_code(key): (axis, end) for axis, end, keys in ends for key in keys}

    @cached_property
    def held_by_gamepad(self) -> dict[str, frozenset[str]]:
        """Names of a gamepad's parts and the buttons that each holds."""
        return _invert(self.gamepad, str)

    @cached_property
    def function_of_key(self) -> dict[int, str]:
        """Key codes and the window's function that each calls."""
        return {key_code(key): function for function, keys in self.window.items() for key in keys}


def find_keymap(world: str, family: str = "") -> Keymap:
    """The shipped key map of a world, of what its name begins with, or of its family; else freedoom's."""
    name = Path(world).name
    while name:
        if (SHIPPED / f"{name}.toml").is_file():
            return load_keymap(SHIPPED / f"{name}.toml")
        name = name.rpartition("-")[0]
    own = SHIPPED / f"{family}.toml"
    return load_keymap(own if family and own.is_file() else DEFAULT)


def load_keymap(path: Path) -> Keymap:
    """Reads a key map. Raises ActionError naming the file, what is wrong in it and the mend."""
    fields = _read(path)
    for table, names in (("buttons", fields.buttons), ("window", fields.window or {})):
        for key in _keys(names):
            _check_key(path, table, key)
    for keys in fields.axes.values():
        for key in (*keys.negative, *keys.positive):
            _check_key(path, "axes", key)
    if fields.mouse.pixels_per_second <= 0:
        raise ActionError(f"{path}: [mouse] `pixels_per_second` has to be above 0")
    for part in _keys(fields.gamepad):
        if part not in GAMEPAD_NAMES:
            raise ActionError(
                f"{path}: [gamepad] has no part `{part}`; a gamepad has {', '.join(GAMEPAD_NAMES)}"
            )
    window = _inherited_window(fields) if fields.window is None else fields.window
    keymap = Keymap(path, fields.buttons, fields.gamepad, window, fields.axes, fields.mouse)
    _check_window(keymap)
    return keymap


def key_code(name: str) -> int:
    """pygame's code of a key. Raises ValueError for a name that pygame does not know."""
    with warnings.catch_warnings():  # that there is no window yet does not matter to a name
        warnings.simplefilter("ignore")
        return pygame.key.key_code(name)


def _read(path: Path) -> KeymapFields:
    return read_toml(path, KeymapFields, "key map", f"it has to be a key map, such as {DEFAULT}", ActionError)


def _check_key(path: Path, table: str, key: str) -> None:
    try:
        key_code(key)
    except ValueError:
        raise ActionError(
            f"{path}: [{table}] has an unknown key `{key}`; keys have pygame's names, such as w, up, space, "
            "left shift, page up, f1"
        ) from None


def _check_window(keymap: Keymap) -> None:
    seen: dict[int, str] = {}
    for function, keys in keymap.window.items():
        if function not in FUNCTIONS:
            raise ActionError(
                f"{keymap.path}: [window] names `{function}`, but its functions are {', '.join(FUNCTIONS)}"
            )
        for key in keys:
            other = seen.setdefault(key_code(key), function)
            if other != function:
                raise ActionError(
                    f"{keymap.path}: the key `{key}` calls both `{other}` and `{function}`; keep one of them"
                )
            if key_code(key) in keymap.held_by_key:
                raise ActionError(
                    f"{keymap.path}: the key `{key}` is in [buttons] and calls `{function}`; keep one of them"
                )


def _inherited_window(fields: KeymapFields) -> Names:
    """The shipped window functions, less the keys that this key map holds buttons with."""
    pushing = (key for keys in fields.axes.values() for key in (*keys.negative, *keys.positive))
    taken = {key_code(key) for key in (*_keys(fields.buttons), *pushing)}
    shipped = _read(DEFAULT).window or {}
    return {f: tuple(key for key in keys if key_code(key) not in taken) for f, keys in shipped.items()}


def _keys(names: Names) -> list[str]:
    return [key for keys in names.values() for key in keys]


def _invert(names: Names, code: Callable[[str], Code]) -> dict[Code, frozenset[str]]:
    """From the codes of keys to the buttons that each holds."""
    held: dict[Code, frozenset[str]] = {}
    for button, keys in names.items():
        for key in keys:
            held[code(key)] = held.get(code(key), frozenset()) | {button}
    return held
