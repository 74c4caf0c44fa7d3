"""What a model has to know to play a world: what may be held, how long a tick is, how to go back."""

import re

from playhead.controls.keymap import Keymap, find_keymap
from playhead.engine.bridge.wire.protocol import WorldInfo
from playhead.world.action import RE_ANCHOR, ActionSpace
from playhead.world.terminal import printable

PROMPT = re.compile(r"prompt_[0-9]+")


def keys_of(world: WorldInfo) -> Keymap:
    """The shipped key map of a world."""
    return find_keymap(world.name, world.family)


def explain_keys(world: WorldInfo, space: ActionSpace) -> str:
    """A world's buttons and axes with the keys that a person has for them, its ticks and scenes: Markdown."""
    keymap, rate = keys_of(world), world.ticks_per_second
    lines = [
        f"# {printable(world.title)}",
        "",
        f"World `{world.name}`. A tick is 1/{rate:g} s and shows {world.frames_per_tick} frame(s) of "
        f"{world.width} x {world.height}. The world stands still but for `act`, which plays "
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
        elif PROMPT.fullmatch(button):
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
    lines += [f"- `{scene.name}`: {printable(scene.title)}, seed {scene.seed}" for scene in world.scenes]
    return "\n".join(lines) + "\n"
