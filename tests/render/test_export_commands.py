"""`export` at the command line: what was recorded comes out frame for frame, or one sentence says why not."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import av
import minari
import numpy as np
import pytest

from playhead import main as command_line
from playhead.engine.recording.reader import Recording
from playhead.render.export.film import GAP
from playhead.scenes.scene import load_scene
from playhead.world.training.footage import read_episode
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world
from tests.played import FIRST, FORK, SECOND, record_play

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def recorded(
    tiny_world_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[int, np.ndarray]]:
    file = tmp_path_factory.mktemp("recorded") / "play.playhead"
    return file, record_play(file, World.load(tiny_world_folder, "cpu"))


@pytest.fixture
def played(recorded: tuple[Path, dict[int, np.ndarray]], tmp_path: Path) -> dict[int, np.ndarray]:
    """What was seen on each branch of `play.playhead`."""
    shutil.copy(recorded[0], tmp_path)
    return recorded[1]


@pytest.fixture
def run(
    tiny_world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command in the test's folder; returns its status and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def main(*words: object, world: Path = tiny_world_folder) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words), "--world", str(world)])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        return int(end.value.code or 0), *capfd.readouterr()

    return main


def frames_of(file: str) -> np.ndarray:
    with np.load(file) as data:
        return data["frames"]


def test_an_npz_holds_the_very_frames_of_any_branch(run: Run, played: dict[int, np.ndarray]) -> None:
    assert run("export", "play.playhead", "--to", "new.npz")[0] == 0
    assert np.array_equal(frames_of("new.npz"), played[2][1:])  # the newest
    assert run("export", "play.playhead", "--to", "old.npz", "--branch", 1)[0] == 0
    assert np.array_equal(frames_of("old.npz"), played[1][1:])
    part = run("export", "play.playhead", "--to", "part.npz", "--from", 5, "--until", 9)
    assert part[:2] == (0, "frames in part.npz: 5\n")
    assert np.array_equal(frames_of("part.npz"), played[2][5:10])
    assert run("export", "play.playhead@1:4", "--to", "led.npz")[0] == 0
    assert np.array_equal(frames_of("led.npz"), played[1][1:5])


def test_branches_stand_side_by_side(run: Run, played: dict[int, np.ndarray]) -> None:
    """The shorter one stays at its last frame."""
    assert run("export", "play.playhead", "--to", "both.npz", "--branch", 2, "--beside", 1)[0] == 0
    both = frames_of("both.npz")
    assert both.shape == (FORK + SECOND, 64, 2 * 64 + GAP, 3)
    assert np.array_equal(both[:, :, :64], played[2][1:])
    longer = np.concatenate([played[1][1:], played[1][-1:].repeat(FORK + SECOND - FIRST, 0)])
    assert np.array_equal(both[:, :, 64 + GAP :], longer)
    assert (
        run("export", "play.playhead", "--to", "2.npz", "--branch", 2, "--beside", "play.playhead@1:")[0] == 0
    )
    assert np.array_equal(frames_of("2.npz"), both)


@pytest.mark.parametrize("name", ["film.mp4", "film.gif", "sheet.png", "pictures"])
def test_films_sheets_and_pictures_are_made(name: str, run: Run, played: dict[int, np.ndarray]) -> None:
    said = run("export", "play.playhead", "--to", name, "--overlay", "--scale", 3, "--beside", 1)
    assert said[:2] == (0, f"frames in {name}: {FORK + SECOND}\n"), said
    if name.startswith("film"):
        with av.open(name) as film:
            shapes = [frame.to_ndarray(format="rgb24").shape for frame in film.decode(video=0)]
        assert shapes == [(3 * 64, 3 * (128 + GAP), 3)] * (FORK + SECOND)
    else:
        made = [Path(name)] if name.endswith("png") else sorted(Path(name).iterdir())
        assert len(made) == (1 if name.endswith("png") else FORK + SECOND)


def test_every_branch_becomes_an_episode_without_a_tick_twice(
    run: Run, played: dict[int, np.ndarray]
) -> None:
    status, said, _ = run("export", "play.playhead", "--to", "data", "--as", "episodes")
    assert (status, said) == (0, f"episodes in data: 2, with {FIRST + SECOND + 2} frames\n")
    first, second = (read_episode(Path("data") / f"play-{n:03d}.npz") for n in (1, 2))
    assert np.array_equal(first.frames, played[1])
    assert np.array_equal(second.frames, played[2][FORK:])
    recording = Recording.read(Path("play.playhead"))
    held = [recording.space.decode(row) for row in second.actions[:-1]]
    assert held == [tick.action for tick in recording.tree.branch(2).ticks]
    assert "already" in run("export", "play.playhead", "--to", "data", "--as", "episodes")[2]


def test_minari_loads_every_branch(run: Run, played: dict[int, np.ndarray]) -> None:
    status, said, _ = run("export", "play.playhead", "--to", "playhead/mine-v0", "--as", "minari")
    assert status == 0 and 'minari.load_dataset("playhead/mine-v0")' in said
    first, second = minari.load_dataset("playhead/mine-v0").iterate_episodes()
    assert np.array_equal(first.observations, played[1])
    assert np.array_equal(second.observations, played[2][FORK:])
    assert second.infos["tick"].tolist() == list(range(FORK, FORK + SECOND + 1))


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_data_set_of_minari_says_whose_it_is_or_what_it_lacks(
    run: Run, played: dict[int, np.ndarray]
) -> None:
    given = {"author": "Ada", "author-email": "ada@example.org", "code-permalink": "https://example.org/c/1"}
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    one = ("export", "play.playhead", "--branch", "1", "--as", "minari")
    status, _, complaint = run(*one, "--to", "mine-v0", *options)
    assert (status, "--author" in complaint) == (0, False)
    kept = minari.load_dataset("mine-v0").storage.metadata
    assert {name: kept[name.replace("-", "_")] for name in given} == {
        name: {value} if name.startswith("author") else value for name, value in given.items()
    }
    status, _, complaint = run(*one, "--to", "mine-v1", "--author", "Ada")
    assert status == 0 and "add --author-email, --code-permalink" in complaint
    status, _, complaint = run("export", "play.playhead", "--to", "x.mp4", "--author", "Ada")
    assert status == 2 and "add --as minari" in complaint and not Path("x.mp4").exists()


def test_a_scene_is_made_of_any_moment_and_played(run: Run, played: dict[int, np.ndarray]) -> None:
    for moment, title, branch, tick in (
        ("play.playhead@1:9", "One", 1, 9),
        ("play.playhead@the fork", None, 2, FORK),
        ("play.playhead", None, 2, FORK + SECOND),
    ):
        words = ["--title", title] if title else []
        done = run("scenes", "new", "--from", moment, "--name", "my-moment", "--force", *words)
        assert done[0] == 0, done
        scene = load_scene(Path("my-moment"))
        assert np.array_equal(scene.context.frames[-3:], played[branch][tick - 2 : tick + 1])
        assert (scene.title, scene.seed) == (title or "My moment", 5)
    assert run("rollout", "--scene", "my-moment", "--actions", "w*2", "--out", "o.npz")[0] == 0


def test_what_does_not_come_out_the_same_is_said_once_with_its_cause(
    run: Run, played: dict[int, np.ndarray], tmp_path: Path
) -> None:
    other = save_world(make_tiny_world(seed=1), tmp_path / "other")
    status, _, said = run("export", "play.playhead", "--to", "o.npz", world=other)
    assert status == 0 and len(frames_of("o.npz")) == FORK + SECOND
    assert said.count("from tick 1 on this is not what was played: the generator's weights") == 1
    made = run("scenes", "new", "--from", "play.playhead@1:4", "--name", "n", world=other)
    assert made[0] == 0 and made[2].count("from tick 0 on this is not what was played") == 1
    assert "not what was played" not in run("export", "play.playhead", "--to", "p.npz")[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["play.playhead", "--to", "x.avi"], "x.avi has no ending that says what to write"),
        (["none.playhead", "--to", "x.mp4"], "there is no recording `none.playhead`"),
        (["play.playhead", "play.playhead", "--to", "x.mp4"], "a film is of one recording"),
        (["play.playhead", "--to", "x.mp4", "--branch", "9"], "there is no branch 9; there are 1, 2"),
        (["play.playhead", "--to", "x.mp4", "--from", "40"], "ticks 1 to 16, so none from 40"),
        (["play.playhead", "--to", "x.mp4", "--from", "4", "--until", "3"], "none from 4 to 3"),
        (["play.playhead", "--to", "x.mp4", "--beside", "play.playhead@x"], "`x` is no moment"),
        (["play.playhead", "--to", "x", "--as", "episodes", "--overlay"], "leave out --beside"),
        (["play.playhead", "--to", "x", "--as", "episodes", "--from", "99"], "no tick was played there"),
        (["play.playhead", "--to", "x", "--as", "minari"], "is no name of a Minari data set"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(
    words: list[str], sentence: str, run: Run, played: dict[int, np.ndarray], tmp_path: Path
) -> None:
    status, _, said = run("export", *words)
    assert status == 2 and sentence in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"play.playhead", "minari"}


@pytest.mark.parametrize("name", ["y [1]", "what*", "y?", "[!a]", "[bold]"])
def test_a_name_is_no_pattern_so_no_episode_is_replaced(
    name: str, run: Run, played: dict[int, np.ndarray], tmp_path: Path
) -> None:
    first, second = (tmp_path / folder / f"{name}.playhead" for folder in ("a", "b"))
    for file in (first, second):
        file.parent.mkdir()
        shutil.copy("play.playhead", file)
    to = ("--to", "data", "--as", "episodes")
    assert run("export", first, *to)[0] == 0
    before = {file: file.stat().st_mtime_ns for file in Path("data").iterdir()}
    status, _, said = run("export", second, *to)
    assert status == 2 and f"data holds episodes of {name} already" in said
    assert {file: file.stat().st_mtime_ns for file in Path("data").iterdir()} == before
    assert run("export", "play.playhead", *to)[0] == 0  # `what*` does not stand for `whatever`
