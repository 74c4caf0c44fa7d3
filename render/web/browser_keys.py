"""What a page has to know of a world's controls: its key map, in the words of the file."""

from collections.abc import Sequence
from typing import Any

from playhead.controls.keymap import FUNCTIONS, Keymap, find_keymap
from playhead.scenes.scene import Scene
from playhead.world.config import WorldConfig

LEFT_OUT = ("quit",)
"""Functions of a window that a page has not: a tab is closed by its browser."""
MODIFIERS = ("left ctrl", "right ctrl", "left alt", "right alt", "left meta", "right meta")
"""Keys with which a browser takes others: with ctrl, the key to walk closes the tab."""
OWN = {"branches": ("m",)}
"""Keys of functions where the window's would be wrong: `tab` is how a page is gone through by keyboard."""


def browser_keys(config: WorldConfig, scenes: Sequence[Scene]) -> dict[str, Any]:
    """A world's controls: `buttons`, `axes`, `mouse`, `gamepad` and `functions` by name, the keys of each,
    what each function does (`help`), and the `prompts` of its scenes in words.

    What the key map holds that this world has not is left out.
    """
    keymap = find_keymap(config.name, config.family)
    space = config.action
    taken = {key for keys in keymap.buttons.values() for key in keys}
    functions = {
        name: [key for key in OWN.get(name, keys) if key not in taken]
        for name, keys in keymap.window.items()
        if name not in LEFT_OUT
    }
    return {
        "buttons": {name: _without_modifiers(keymap.buttons.get(name, ())) for name in space.buttons},
        "axes": {
            name: {"negative": keys.negative, "positive": keys.positive}
            for name, keys in keymap.axes.items()
            if name in space.axes
        },
        "mouse": _mouse(keymap, config),
        "gamepad": {name: parts for name, parts in keymap.gamepad.items() if name in space.buttons},
        "functions": functions,
        "help": {name: FUNCTIONS[name] for name in functions},
        "prompts": {scene.name: scene.prompts for scene in scenes},
    }


def _without_modifiers(keys: tuple[str, ...]) -> tuple[str, ...]:
    """A button's keys without those that make commands to the browser of others; all, if it has no other."""
    return tuple(key for key in keys if key not in MODIFIERS) or keys


def _mouse(keymap: Keymap, config: WorldConfig) -> dict[str, Any] | None:
    """How the mouse moves axes; None where it moves none of this world's."""
    mouse = keymap.mouse
    if not mouse.axes or not set(mouse.axes) <= set(config.action.axes):
        return None
    return {
        "x": mouse.x, "y": mouse.y, "pixels_per_second": mouse.pixels_per_second,
        "invert_x": mouse.invert_x, "invert_y": mouse.invert_y,
    }  # fmt: skip
