"""Tables are whole: unlimited in a pipe, folded on a terminal, and JSON for programs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from playhead import main as command_line
from playhead.scenes.scene import list_scenes, ready_scenes, scene_names
from playhead.world.public import PUBLIC
from playhead.world.world import World
from tests.conftest import save_scene
from tests.played import FIRST, SECOND, record_play

ROOT = Path(__file__).parents[1]
LONG = "a-name-that-is-longer-than-any-column-of-a-narrow-terminal"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a broken scene of a long name, and nothing else."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    monkeypatch.delenv("PLAYHEAD_RECORDINGS", raising=False)
    (tmp_path / "scenes").mkdir()
    (save_scene(tmp_path / "scenes" / LONG) / "scene.toml").write_text("= [")
    (tmp_path / "worlds" / LONG).mkdir(parents=True)
    (tmp_path / "worlds" / LONG / "world.toml").write_text("= [")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / f"{LONG}.playhead").touch()
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def main(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["main.py", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        out, err = capfd.readouterr()
        assert not end.value.code and not err, err
        return out

    return main


@pytest.mark.parametrize("command", ["scenes", "worlds", "recordings", "doctor"])
def test_nothing_is_cut_in_a_pipe(
    command: str, mine: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run(command).splitlines()
    (line,) = [line for line in lines if LONG in line and line.startswith("│")]
    reason = {"recordings": "damaged: see `recordings info`"}.get(command, "correct it there")
    assert reason in line and "…" not in "".join(lines)
    if command == "scenes":
        assert sum("matrix-game-2-gta " in line for line in lines) == 3


@pytest.mark.skipif(os.name != "posix", reason="opens a pseudo-terminal")
@pytest.mark.parametrize("command", ["scenes", "worlds", "recordings", "doctor"])
def test_what_is_too_long_is_folded_on_a_terminal(command: str, mine: Path) -> None:
    mother, child = os.openpty()
    words = [sys.executable, str(ROOT / "main.py"), command]
    env = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(words, stdout=child, env=env) as process:
        os.close(child)
        shown = b""
        while part := _read(mother):
            shown += part
    os.close(mother)
    assert process.returncode == 0
    lines = shown.decode().splitlines()
    assert "…" not in "".join(lines)
    assert all(len(line) <= 60 for line in lines if line.startswith("│"))
    first = "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
    assert LONG in first.replace("world ", "")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so that the other end is closed
        return b""


def test_scenes_are_json(mine: Path, run: Callable[..., str]) -> None:
    rows = json.loads(run("scenes", "--json"))
    by_state: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_state.setdefault(row["state"], []).append(row)
    assert [row["name"] for row in by_state["ready"]] == scene_names()
    one, row = list_scenes()[0], by_state["ready"][0]
    for field in ("title", "world", "place", "seed"):
        assert row[field] == getattr(one, field)
    assert {row["name"] for row in by_state["to be prepared"]} == {fields.name for fields in ready_scenes()}
    (broken,) = by_state["broken"]
    assert broken["name"] == LONG and "correct it there" in broken["problem"]


@pytest.mark.parametrize("words", [["worlds", "--json"], ["worlds", "list", "--json"]])
def test_worlds_are_json(words: list[str], mine: Path, run: Callable[..., str]) -> None:
    found = json.loads(run(*words))
    freedoom, broken = found["here"]
    assert (freedoom["name"], freedoom["width"], freedoom["height"]) == ("freedoom", 256, 160)
    assert broken["name"] == LONG and "correct it there" in broken["problem"]
    assert [row["name"] for row in found["public"]] == list(PUBLIC)


def test_recordings_are_json(mine: Path, run: Callable[..., str], tiny_world_folder: Path) -> None:
    record_play(mine / "recordings" / "b.playhead", World.load(tiny_world_folder, "cpu"))
    found = json.loads(run("recordings", "--json"))
    assert found == json.loads(run("recordings", "list", mine / "recordings", "--json"))
    assert found["folder"] == str(mine / "recordings")
    broken, whole = found["recordings"]
    assert broken["name"] == LONG and broken["problem"]
    assert (whole["name"], whole["world"], whole["branches"]) == ("b", "tiny", 2)
    assert whole["ticks"] == FIRST + SECOND and whole["seconds"] == pytest.approx(whole["ticks"] / 17.5)


def test_doctors_findings_are_json(mine: Path, run: Callable[..., str]) -> None:
    found = json.loads(run("doctor", "--json"))
    assert found[0]["part"] == "Python" and found[0]["found"]
    assert any(row["part"] == f"world {LONG}" and "correct it there" in row["lack"] for row in found)
