"""Worlds of every kind, small enough to be played in a moment, and vectors of them here and on a server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import tomli_w

from playhead.engine.agents.vector import FrameVectorEnv, RemoteVectorEnv, WorldVectorEnv
from playhead.scenes.build import save_scene
from playhead.scenes.scene import SceneFields
from playhead.world.randomise import random_context, random_world
from playhead.world.world import World
from tests.conftest import make_tiny_context, make_tiny_world
from tests.engine.bridge.conftest import serving

KINDS = {
    "pass": {}, "one pass": {"one_pass": True}, "rest": {"rest_after": 2}, "two frames": {"time_factor": 2},
}  # fmt: skip
"""Kinds of tiny worlds; other names are those of public worlds, whose small ones are played."""


def make_kind(kind: str, folder: Path) -> tuple[World, Path]:
    """A world of a kind, and the folder of a scene for it."""
    if kind in KINDS:
        world = make_tiny_world(**KINDS[kind])
        context = make_tiny_context(5)
    else:
        config = random_world(kind, small=True)
        (folder / kind).mkdir()
        (folder / kind / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
        world, context = World.load(folder / kind, "cpu"), random_context(config)
    fields = SceneFields("start", "Start", "", world.config.name, 0, "context.npz")
    return world, save_scene(fields, context, folder)


@pytest.fixture(params=["here", "remote"])
def make_vector(request, tmp_path) -> Iterator[Callable[..., tuple[FrameVectorEnv, World, Path]]]:
    """Makes a vector of two environments of a world of some kind. Returns it, the world and the scene."""
    made: list[FrameVectorEnv] = []

    def make(kind: str, **options) -> tuple[FrameVectorEnv, World, Path]:
        world, scene = make_kind(kind, tmp_path)
        if request.param == "here":
            made.append(WorldVectorEnv(2, world, scene=scene, **options))
        else:
            server = served.enter_context(serving(world, scene))
            made.append(RemoteVectorEnv(2, address=server.address, **options))
        return made[-1], world, scene

    with ExitStack() as served:
        yield make
        for vector in made:
            vector.close()
