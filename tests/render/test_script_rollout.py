"""A rollout for programs: one array of frames, whose hashes are those that the command line records."""

import numpy as np
import pytest

from playhead import Action, PlayheadError, Recording, rollout
from playhead.engine.recording.schema import chain
from playhead.scenes.scene import load_scene
from playhead.world.world import World
from tests.command_line import run

SCRIPT = "w*5 w+right*3 .*2"


def hashes(start: bytes, frames: np.ndarray) -> list[bytes]:
    """The chained hashes of frames, one a tick, as recordings have them."""
    found = [start]
    for frame in frames:
        found.append(chain(found[-1], frame[None]))
    return found[1:]


def test_its_frames_have_the_hashes_that_the_command_records(tiny_world_folder, tiny_scene, tmp_path):
    done = run(
        "rollout", "--world", tiny_world_folder, "--scene", tiny_scene, "--actions", SCRIPT,
        "--device", "cpu", "--out", tmp_path / "walk.npz", "--record", tmp_path / "walk.playhead",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = Recording.read(tmp_path / "walk.playhead")
    told = []
    world, scene = World.load(tiny_world_folder, "cpu"), load_scene(tiny_scene)
    frames = rollout(world, scene, SCRIPT, progress=lambda done, of: told.append((done, of)))
    assert frames.shape == (10, 64, 64, 3) and told == [(i, 10) for i in range(1, 11)]
    assert hashes(kept.tree.branch(1).start, frames) == [tick.hash for tick in kept.tree.path(1)]
    walk = [Action(frozenset({"forward"}))] * 5
    assert np.array_equal(rollout(world, scene, walk), frames[:5])
    assert not np.array_equal(rollout(world, scene, walk, seed=1), frames[:5])
    assert not np.array_equal(rollout(world, scene, walk, steps=1), frames[:5])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"actions": ""}, "tick or more"),
        ({"actions": "fly"}, "`fly`"),
        ({"seed": -1}, "seed"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_is(tiny_world, tiny_scene, wrong, said):
    told = []
    asked = {"actions": "w*3", "progress": lambda *_: told.append(1), **wrong}
    with pytest.raises(PlayheadError, match=said):
        rollout(tiny_world, load_scene(tiny_scene), **asked)
    assert not told


def test_what_progress_raises_ends_it(tiny_world, tiny_scene):
    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout(tiny_world, load_scene(tiny_scene), "w*1000", progress=stop)
