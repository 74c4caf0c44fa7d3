"""Gymnasium environments of neural worlds; importing this registers them.

`gymnasium.make("playhead.engine.agents:playhead/Freedoom-v0")` does that by itself.
"""

import gymnasium
from gymnasium.envs.registration import EnvSpec

from playhead.engine.agents.env import RemoteWorldEnv, WorldEnv
from playhead.engine.agents.making import make
from playhead.engine.agents.vector import RemoteVectorEnv, WorldVectorEnv

ENTRY = "playhead.engine.agents.env:WorldEnv"

__all__ = ["RemoteVectorEnv", "RemoteWorldEnv", "WorldEnv", "WorldVectorEnv", "make", "registered"]

gymnasium.register(
    "playhead/Freedoom-v0",
    entry_point=ENTRY,
    vector_entry_point="playhead.engine.agents.vector:WorldVectorEnv",
    kwargs={"world": "freedoom"},
)
gymnasium.register(
    "playhead/Remote-v0",
    entry_point="playhead.engine.agents.env:RemoteWorldEnv",
    vector_entry_point="playhead.engine.agents.vector:RemoteVectorEnv",
)


def registered(world: str) -> EnvSpec | None:
    """The registered environment of a world here, if it has one: `gymnasium.make` takes it, and its `id`."""
    found = (spec for spec in gymnasium.registry.values() if spec.entry_point == ENTRY)
    return next((spec for spec in found if spec.kwargs.get("world") == world), None)
