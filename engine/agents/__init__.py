"""Gymnasium environments of neural worlds; importing this registers them.

`gymnasium.make("engine.agents:playhead/Freedoom-v0")` does that by itself.
"""

import gymnasium

from engine.agents.env import RemoteWorldEnv, WorldEnv
from engine.agents.vector import RemoteVectorEnv, WorldVectorEnv

__all__ = ["RemoteVectorEnv", "RemoteWorldEnv", "WorldEnv", "WorldVectorEnv"]

gymnasium.register(
    "playhead/Freedoom-v0",
    entry_point="engine.agents.env:WorldEnv",
    vector_entry_point="engine.agents.vector:WorldVectorEnv",
    kwargs={"world": "freedoom"},
)
gymnasium.register(
    "playhead/Remote-v0",
    entry_point="engine.agents.env:RemoteWorldEnv",
    vector_entry_point="engine.agents.vector:RemoteVectorEnv",
)
