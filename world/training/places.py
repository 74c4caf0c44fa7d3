"""The places the freedoom world is filmed in, and the eight buttons held there.

A place is one map of ViZDoom's own scenarios or of the two Freedoom games it ships
(https://vizdoom.farama.org, https://freedoom.github.io; MIT and BSD licences).
"""

from __future__ import annotations

from dataclasses import dataclass

HELD_OUT = 900_000
"""Episodes of this seed and above are kept for evaluation."""

BUTTONS = (
    "forward",
    "back",
    "turn_left",
    "turn_right",
    "strafe_left",
    "strafe_right",
    "attack",
    "use",
)

# What ViZDoom calls each of BUTTONS, in the same order.
DOOM_BUTTONS = (
    "MOVE_FORWARD",
    "MOVE_BACKWARD",
    "TURN_LEFT",
    "TURN_RIGHT",
    "MOVE_LEFT",
    "MOVE_RIGHT",
    "ATTACK",
    "USE",
)


@dataclass(frozen=True)
class Place:
    """One map. `wad` lies in ViZDoom's scenarios folder, or beside it for a whole game."""

    name: str
    wad: str
    map: str = "map01"
    game: bool = False  # `wad` is a whole game, not a scenario played with Freedoom 2's art
    skill: int = 3  # 1 to 5: how many monsters and how fast
    scatter: bool = False  # its one start is fixed: begin at a seeded pick-up of the map instead


PLACES = {
    place.name: place
    for place in (
        Place("my_way_home", "my_way_home.wad"),
        Place("deathmatch", "deathmatch.wad"),
        Place("health_gathering_supreme", "health_gathering_supreme.wad"),
        Place("defend_the_center", "defend_the_center.wad"),
        Place("freedoom2_map01", "freedoom2.wad", game=True, scatter=True),
        Place("freedoom1_e1m1", "freedoom1.wad", map="E1M1", game=True, scatter=True),
    )
}
