"""Makes an environment by what is wanted of it, for those who need none of Gymnasium's names."""

from typing import Any

from playhead.engine.agents.env import RemoteWorldEnv, WorldEnv
from playhead.engine.agents.vector import RemoteVectorEnv, WorldVectorEnv


def make(
    world: Any = None,  # noqa: ANN401 - a name, a folder or a World
    *,
    address: str | None = None,
    num_envs: int | None = None,
    **options: Any,  # noqa: ANN401 - those of the classes
) -> WorldEnv | RemoteWorldEnv | WorldVectorEnv | RemoteVectorEnv:
    """An environment of a world here, or of one that a server at `address` plays.

    `world`: a name, or here also a folder or a loaded `World`; by default `freedoom` here, and the server's
    first there. `num_envs`: a vector of so many, stepped together. `options` are those of the class that
    comes back: `scene`, `steps`, `render_mode`, `max_ticks`, `reward`, …
    """
    if world is not None:
        options["world"] = world
    if address is not None:
        if num_envs is None:
            return RemoteWorldEnv(address, **options)
        return RemoteVectorEnv(num_envs, address=address, **options)
    return WorldEnv(**options) if num_envs is None else WorldVectorEnv(num_envs, **options)
