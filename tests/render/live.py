"""A person at the keyboard who plays at odd moments and goes back again and again."""

import random
import time

from tests.render.desktop import Player
from tests.tools.recorded import KEYS


def play_a_little(player: Player, draw: random.Random) -> None:
    """Presses, holds and lets go of some keys."""
    for _ in range(draw.randrange(2, 6)):
        player.type(draw.choice(("keydown", "keyup", "key")), draw.choice(KEYS))
        time.sleep(draw.uniform(0, 0.1))


def go_back(player: Player, draw: random.Random) -> None:
    """Holds or taps the key that goes back, or undoes a second; now and then bookmarks where that led to."""
    key = draw.choice(("z", "z", "BackSpace"))
    player.type("keydown", key)
    time.sleep(draw.uniform(0, 0.8))
    player.type("keyup", key)
    if draw.random() < 0.4:
        player.press("b", "Return")
