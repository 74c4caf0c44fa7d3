"""All scenes of a world in one picture, a row a scene: the start, walked, stood still for long, walked on.

    python examples/all_scenes.py --out scenes.png              # ten minutes and more on two cores
    python examples/all_scenes.py --scene acid-maze --still 64  # one row, to the first 64 ticks of standing

A row says more about a world than a table: does it hold its lines while one walks, and its picture while one
stands?
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from playhead import Action, PlayheadError, Session, World, load_scene
from playhead.render.export.sheet import write_png
from playhead.scenes.scene import Scene, scenes_of

WALK = [Action(frozenset({"forward"}))] * 14 + [Action(frozenset({"forward", "turn_right"}))] * 10
STILL = (64, 320, 640)
"""Ticks of standing still after which there is a picture."""


def row(world: World, scene: Scene, still: int) -> np.ndarray:
    """Pictures of one scene beside one another, uint8 `(H, n * W, 3)`."""
    session = Session(world, scene.context, scene.seed)
    seen = [session.frames[-1]]

    def go(ticks: int, walk: bool = True) -> None:
        for tick in range(ticks):
            frames = session.step(WALK[tick % len(WALK)] if walk else Action())
        seen.append(frames[-1])

    go(24)
    go(48)
    marks = [mark for mark in STILL if mark <= still]
    for before, mark in zip([0, *marks], marks, strict=False):
        go(mark - before, walk=False)
    go(40)
    return np.concatenate(seen, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws every scene of a world, walked and stood in.")
    parser.add_argument("--world", default="freedoom")
    parser.add_argument("--scene", action="append", help="only this scene; may be repeated")
    parser.add_argument("--still", type=int, default=STILL[-1], help="ticks of standing still")
    parser.add_argument("--out", type=Path, default=Path("scenes.png"))
    wanted = parser.parse_args()
    try:
        world = World.load(wanted.world)
        scenes = [load_scene(name) for name in wanted.scene or []] or scenes_of(world.config)
        rows = [row(world, scene, wanted.still) for scene in scenes]
    except PlayheadError as error:
        sys.exit(str(error))
    write_png(wanted.out, np.concatenate(rows))
    print(f"{len(rows)} of the scenes of {world.config.name} in {wanted.out}")


if __name__ == "__main__":
    main()
