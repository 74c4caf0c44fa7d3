"""What the window says when a key asks for another prompt of the scene."""

from textwrap import shorten
from typing import TYPE_CHECKING

from playhead.controls.keymap import Keymap
from playhead.world.action import prompt_name

if TYPE_CHECKING:
    from playhead.scenes.scene import Scene

LONGEST = 120
"""Characters of a prompt that are shown."""


def prompt_note(keymap: Keymap, key: int, scene: "Scene") -> str:
    """The prompt that the key of this code goes on under, or that the scene has none of that number.

    Empty for other keys, and where the scene does not tell its prompts in words.
    """
    held = keymap.held_by_key.get(key, frozenset())
    count = len(scene.context.prompts)
    for number in range(len(keymap.buttons)):
        if prompt_name(number) not in held:
            continue
        if number >= count:
            has = f"{count} prompt{'s' if count != 1 else ''}" if count else "no prompts"
            return f"this scene has {has}, so there is none of number {number + 1}"
        if number >= len(scene.prompts):
            return ""
        return f"{number + 1}  ·  {shorten(scene.prompts[number], LONGEST, placeholder=' …')}"
    return ""
