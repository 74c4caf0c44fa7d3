"""What a model has to know to play a world: what may be held, how long a tick is, how to go back."""

from collections.abc import Sequence

from playhead.controls.keymap import Keymap, find_keymap
from playhead.scenes.scene import Scene
from playhead.world.action import RE_ANCHOR
from playhead.world.config import WorldConfig
from playhead.world.terminal import printable


def keys_of(config: WorldConfig) -> Keymap:
    """The shipped key map of a world."""
    return find_keymap(config.name, config.family)


def explain_keys(config: WorldConfig, scenes: Sequence[Scene]) -> str:
    """A world's buttons and axes with the keys that a person has for them, its ticks and scenes: Markdown."""
    space, keymap, rate = config.action, keys_of(config), config.ticks_per_second
    lines = [
        f"# {printable(config.title)}",
        "",
        f"World `{config.name}`. A tick is 1/{rate:g} s and shows {config.frames_per_tick} frame(s) of "
        f"{config.frame_width} x {config.frame_height}. The world stands still but for `act`, which plays "
        "moves one after the other; in a move all its buttons are held at once, for so many ticks.",
        "",
        "| button | a person's keys |",
        "| --- | --- |",
    ]
    for button in space.buttons:
        keys = ", ".join(keymap.buttons.get(button, ())) or "none"
        command = ""
        if button == RE_ANCHOR:
            command = "; returns to the scene's start, while ticks go on"
        elif button in space.commands:
            command = "; goes on under that prompt of the scene, if it has it"
        lines.append(f"| `{button}` | {keys}{command} |")
    if space.axes:
        lines += [
            "",
            "Axes go from -1 to 1 and are given by value: " + ", ".join(f"`{a}`" for a in space.axes),
        ]
    if space.one_hot:
        lines += [
            "",
            "Of several buttons that are held at once this world sees the first in this list alone.",
        ]
    lines += ["", "A move may name a key in place of its button. Scenes to open:", ""]
    lines += [f"- `{scene.name}`: {printable(scene.title)}, seed {scene.seed}" for scene in scenes]
    return "\n".join(lines) + "\n"
