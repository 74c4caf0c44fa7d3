"""Playhead, an engine for playing a neural world: what programs may build on. docs/api.md tells of each name.

Nothing is loaded before it is asked for: `import playhead` takes neither torch nor a window.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playhead.engine.agents import make as make
    from playhead.engine.bridge.client.client import Client as Client
    from playhead.engine.notebook_film import Film as Film
    from playhead.engine.recording.reader import Recording as Recording
    from playhead.engine.session import Session as Session
    from playhead.render.script_rollout import rollout as rollout
    from playhead.scenes.scene import load_scene as load_scene
    from playhead.world.action import Action as Action
    from playhead.world.errors import PlayheadError as PlayheadError
    from playhead.world.world import World as World

__version__ = "0.1.0"

_PUBLIC = {
    "Action": "playhead.world.action",
    "Client": "playhead.engine.bridge.client.client",
    "Film": "playhead.engine.notebook_film",
    "PlayheadError": "playhead.world.errors",
    "Recording": "playhead.engine.recording.reader",
    "Session": "playhead.engine.session",
    "World": "playhead.world.world",
    "load_scene": "playhead.scenes.scene",
    "make": "playhead.engine.agents",
    "rollout": "playhead.render.script_rollout",
}
"""Where each public name is from."""

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> object:
    """Loads a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module `playhead` has no attribute `{name}`")
    try:
        found = getattr(import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        from playhead.world.errors import PlayheadError
        from playhead.world.extras import install

        raise PlayheadError(f"environments need Gymnasium: {install('agents')}") from None
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
