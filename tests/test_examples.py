"""The programs in examples/ run as they are, on the shipped world; here for a moment each."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import pygame
import pytest

from tests.engine.bridge.conftest import serve_process
from world.found import SHIPPED

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (SHIPPED / "freedoom" / "generator.safetensors").is_file(), reason="freedoom's weights are not here"
)


def run(name: str, folder: Path, *options: str) -> str:
    """Runs an example in `folder`. Returns what it printed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *options], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


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
