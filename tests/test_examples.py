"""The programs in examples/ run as they are, on the shipped world; here for a moment each."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import pygame
import pytest

from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.world.world import World
from playhead.world.world_folders import SHIPPED
from tests.engine.agents.conftest import make_kind
from tests.engine.bridge.conftest import serve_process

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text("utf-8")
pytestmark = pytest.mark.skipif(
    not (SHIPPED / "freedoom" / "generator.safetensors").is_file(), reason="freedoom's weights are not here"
)


def run(name: str, folder: Path, *options: str) -> str:
    """Runs an example in `folder`. Returns what it printed."""
    done = start(name, folder, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def start(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *options], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip


def test_the_walker_sees_the_same_on_a_server_of_its_own_and_on_another(tmp_path):
    start = ("--scene", "acid-garden", "--seed", "7")
    said = run("walker.py", tmp_path, *start, "--out", "own.png")
    assert "seed 7" in said and "ticks  13 to  20: forward+turn_right" in said
    assert pygame.image.load(tmp_path / "own.png").get_size() == (256, 160)
    with serve_process(Path("freedoom"), ROOT / "scenes" / "shipped" / "acid-garden") as (_, address):
        run("walker.py", tmp_path, *start, "--connect", address, "--out", "other.png")
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_the_random_agent_films_every_tick(tmp_path):
    assert "12 ticks in random.mp4" in run("random_agent.py", tmp_path, "--ticks", "12")
    with av.open(str(tmp_path / "random.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 13


def test_ppo_learns_from_what_is_green(tmp_path):
    said = run("ppo_green.py", tmp_path, "--ticks", "32", "--rollout", "32", "--episode", "8")
    assert "before" in said and "after" in said
    assert "policy.pth" in zipfile.ZipFile(tmp_path / "ppo-green.zip").namelist()


def test_a_stand_in_for_a_language_model_plays_and_what_it_played_replays(tmp_path):
    said = run("model_player.py", tmp_path, "--turns", "4", "--width", "128", "--save", "corridor")
    assert "branch 2, tick  32: 8 ticks of turn_left" in said and "saved 40 ticks" in said
    kept = Recording.read(tmp_path / "recordings" / "corridor.playhead")
    assert [mark.name for mark in kept.tree.bookmarks] == ["half way"]
    assert verify(kept, World.load("freedoom", "cpu")) is None


def test_the_notebook_runs_and_has_been_run(tmp_path):
    """Its cells run one after the other, and each of those that show something has a film in its output."""
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text("\n".join("".join(cell["source"]) for cell in code))
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown = ["".join(out["data"].get("text/html", "")) for cell in code for out in cell["outputs"]]
    assert sum("<video" in page for page in shown) == 3


def test_the_page_about_agents_is_true(tmp_path):
    """Its Python blocks run one after the other; the last one needs another machine."""
    page = (ROOT / "docs" / "agents.md").read_text("utf-8")
    *blocks, remote = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "page.py").write_text(
        "".join(blocks) + "env.reset()\nprint(env.step(env.action_space.sample())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and -1 < float(done.stdout) < 1
    compile(remote, "agents.md", "exec")


@pytest.fixture(scope="module")
def of_two_worlds(tmp_path_factory):
    """The address of a server whose first world is a small Matrix-Game, and whose second is freedoom."""
    folder = tmp_path_factory.mktemp("worlds")
    _, scene = make_kind("matrix-game-2", folder)
    with serve_process(folder / "matrix-game-2", scene, "--world", "freedoom") as (_, address):
        yield address


def test_the_walker_finds_the_world_that_it_can_walk_in(tmp_path, of_two_worlds):
    start = ("--connect", of_two_worlds, "--seed", "7")
    assert "buttons: forward, back" in run("walker.py", tmp_path, *start, "--out", "found.png")
    run("walker.py", tmp_path, *start, "--world", "freedoom", "--out", "named.png")
    assert (tmp_path / "found.png").read_bytes() == (tmp_path / "named.png").read_bytes()
    code = re.search(r"^```python\n(.*?)^```", PROTOCOL, re.DOTALL | re.MULTILINE)[1]
    done = subprocess.run(
        [sys.executable, "-c", code, of_two_worlds], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "") and "tick 30" in done.stdout


REFUSED = [
    ("walker.py", ("--world", "matrix-game-2-tiny"), "no world `matrix-game-2-tiny` to walk in"),
    ("walker.py", ("--scene", "nowhere"), "no world with the scene `nowhere`"),
    ("random_agent.py", ("--scene", "acid-garden"), "there is no scene `acid-garden`"),
    ("random_agent.py", ("--world", "nowhere"), "there is no world `nowhere`"),
    ("random_agent.py", ("--ticks", "0"), "`max_ticks` is 0"),
    ("ppo_green.py", ("--world", "nowhere"), "there is no world `nowhere`"),
    ("ppo_green.py", ("--world", "", "--ticks", "32"), "there is no scene `acid-garden`"),
    ("ppo_green.py", ("--episode", "0"), "`max_ticks` is 0"),
]
"""Examples, their options, and a part of the sentence in which they end."""
IN_TURN = """
import contextlib, io, json, runpy, sys
ended = []
for command in json.loads(sys.argv[1]):
    sys.argv, said = command, io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            runpy.run_path(command[0], run_name="__main__")
            ended.append((None, said.getvalue()))
        except SystemExit as end:
            ended.append((end.code, said.getvalue()))
print(json.dumps(ended))
"""
"""Runs programs one after the other in one process: what they import is most of what they take."""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory, of_two_worlds):
    """How each of `REFUSED` ended: what it gave to `sys.exit`, and what it said on stderr before."""
    commands = [
        [str(ROOT / "examples" / name), "--connect", of_two_worlds, *options] for name, options, _ in REFUSED
    ]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)], cwd=tmp_path_factory.mktemp("refused"),
        capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda n: " ".join(map(str, REFUSED[n][:2])))
def test_what_an_example_cannot_play_is_said_in_a_sentence(refusals, number):
    sentence, before = refusals[number]  # which Python prints, with status 1
    assert REFUSED[number][2] in sentence and len(sentence.splitlines()) == 1 and before == ""


@pytest.mark.parametrize(
    ("name", "lacks", "command"),
    [
        ("random_agent.py", "gymnasium", r"pip install -e '\.\[agents\]' in "),
        ("ppo_green.py", "gymnasium", r"pip install -e '\.\[agents\]' in "),
        ("ppo_green.py", "stable_baselines3", "pip install stable-baselines3$"),
        ("model_player.py", "mcp", r"pip install -e '\.\[mcp\]' in "),
    ],
)
def test_an_example_whose_packages_are_not_here_says_what_to_install(tmp_path, name, lacks, command):
    program = (
        f"import runpy, sys; sys.modules[{lacks!r}] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "examples" / name)], cwd=tmp_path, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and re.search(command, done.stderr)


@pytest.mark.parametrize(("world", "rate", "frames"), [("", 25, 28), ("freedoom", 17.5, 4)])
def test_the_random_agent_films_any_world_at_its_own_rate(tmp_path, of_two_worlds, world, rate, frames):
    """It happens to hold `re_anchor` here, after which a tick has 9 frames, as the first one has."""
    options = ("--ticks", "3", "--world", world)
    assert "3 ticks" in run("random_agent.py", tmp_path, "--connect", of_two_worlds, *options)
    with av.open(str(tmp_path / "random.mp4")) as film:
        assert float(film.streams.video[0].average_rate) == pytest.approx(rate)
        assert sum(1 for _ in film.decode(video=0)) == frames


def test_ppo_learns_in_freedoom_wherever_a_server_has_it(tmp_path, of_two_worlds):
    said = run("ppo_green.py", tmp_path, "--connect", of_two_worlds, "--ticks", "32", "--rollout", "32",
               "--episode", "8")  # fmt: skip
    assert "after" in said


def test_all_scenes_draws_a_row_a_scene(tmp_path):
    said = run("all_scenes.py", tmp_path, "--scene", "acid-maze", "--still", "0", "--out", "rows.png")
    assert "1 of the scenes of freedoom in rows.png" in said
    assert pygame.image.load(tmp_path / "rows.png").get_size() == (4 * 256, 160)
    done = start("all_scenes.py", tmp_path, "--scene", "nowhere")
    assert done.returncode == 1 and "nowhere" in done.stderr and len(done.stderr.splitlines()) == 1
