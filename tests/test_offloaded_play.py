"""Worlds within a budget of memory, as they are played from the command line."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from playhead.engine.bridge.server.registry import Registry
from playhead.engine.doctor import examine
from playhead.engine.recording.reader import Recording
from playhead.render.bench.figures import PlayFigures
from playhead.scenes.build import save_scene
from playhead.scenes.scene import SceneFields
from playhead.world.acceleration import pick_dtype
from playhead.world.catalogue import scan_worlds
from playhead.world.config import load_config
from playhead.world.errors import PlayheadError
from playhead.world.home import scenes_folder
from playhead.world.offload.memory_budget import MemoryBudget, told_least
from playhead.world.offload.needs import Needs
from playhead.world.randomise import random_context, random_world, save_world_config
from tests.command_line import refusal, run
from tests.world.offloading import make_world, needs_of

LAYERS = 16
SCRIPT = "prompt_1 prompt_2"


def needs_of_played(folder: Path) -> Needs:
    """What the world takes in the number type that a CPU plays it in."""
    return needs_of(load_config(folder / "world.toml"), pick_dtype(torch.device("cpu")))


def some_ram(folder: Path) -> tuple[str, str]:
    """A budget within which a good part of its blocks stay in their file."""
    return "--ram", f"{-(-needs_of_played(folder).on_device(LAYERS - 3) // 2**20)}MB"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world whose blocks are most of it, and a scene of it; returns the world's folder."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path))
    world, config = make_world("causal-forcing", layers=LAYERS)
    fields = SceneFields("start", "Noise", "Random.", config.name, 3, "context.npz", ("one", "another"))
    save_scene(fields, random_context(config), scenes_folder(), force=True)
    return world


@pytest.fixture
def start(folder: Path) -> tuple[object, ...]:
    return ("--world", folder, "--scene", scenes_folder() / "start", "--device", "cpu")


def test_a_rollout_within_a_budget_is_the_one_without_as_is_its_replay(
    folder: Path, start: tuple[object, ...], tmp_path: Path
) -> None:
    frames = []
    for name, options in (("whole", ()), ("within", some_ram(folder))):
        out, record = tmp_path / f"{name}.npz", tmp_path / f"{name}.playhead"
        given = (*start, "--actions", SCRIPT, "--out", out, "--record", record, *options)
        done = run("--verbose", "rollout", *given)
        assert done.returncode == 0, done.stderr
        said = re.search(rf"offloaded: \d+ of {LAYERS} blocks on the disk", done.stderr)
        assert bool(said) == bool(options)
        frames.append(np.load(out)["frames"])
        assert len(Recording.read(record).tree.branches) == 1
    assert np.array_equal(*frames)
    for name, options in (("whole", some_ram(folder)), ("within", ())):
        given = ("--verify", "--world", folder, "--device", "cpu", *options)
        done = run("replay", tmp_path / f"{name}.playhead", *given)
        assert done.returncode == 0, done.stderr
        assert "every frame equal" in done.stdout


def test_bench_play_prints_what_a_tick_moves_beside_what_the_link_allows(
    folder: Path, start: tuple[object, ...]
) -> None:
    done = run("bench", "play", *start, "--ticks", "50", *some_ram(folder), "--json")
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout, type=PlayFigures)
    blocks = int(found.offloaded.split()[0])
    assert 2 < blocks <= LAYERS and found.moved == 5 * blocks * needs_of_played(folder).layout.size
    assert found.link is not None and found.link > 0
    lines = {line[:13].strip(): line[14:] for line in found.lines()}
    assert lines["offloaded"].startswith(f"{blocks} of {LAYERS} blocks on the disk, ")
    share = re.fullmatch(
        r"([\d.e+]+) GB/s measured with nothing beside it; reached ([\d.e+-]+), (\d+) % of it", lines["link"]
    )
    assert share is not None
    assert abs(100 * float(share[2]) / float(share[1]) - float(share[3])) < 2


def test_the_doctor_says_what_memory_there_is_and_what_a_world_may_be_brought_down_to(folder: Path) -> None:
    found = {finding.part: finding.found for finding in examine()}
    assert re.search(r"[\d.]+ GB of main memory", found["memory"])
    if torch.cuda.is_available():
        return
    needs = needs_of_played(folder)
    usual, least = told_least(needs.as_ever()), told_least(needs.least(True))
    said = found[f"world {load_config(folder / 'world.toml').name}"]
    assert f"takes {usual} of main memory, by --ram at least {least}" in said


def test_a_server_keeps_its_sessions_memory_free(folder: Path) -> None:
    needs = needs_of_played(folder)
    sessions = 64 * 2**20
    room = needs.on_device(9) - needs.cache
    budget = MemoryBudget(ram=room + sessions, sessions=sessions)
    registry = Registry.load([str(folder)], [], "cpu", budget=budget)
    (world,) = registry.worlds.values()
    assert world.plan is not None and len(world.plan.layers) == 9
    with pytest.raises(PlayheadError, match="a budget of one world; serve one --world with them"):
        Registry.load([str(folder), "freedoom"], [], "cpu", budget=MemoryBudget(ram=2**33))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ram", "1MB"), "does not fit --ram 1 MB; the least that would do is"),
        (("--ram", "much"), "--ram is a size such as 6GB or 800MB, not `much`"),
        (("--vram", "6GB"), "--vram is for an NVIDIA GPU, and this is cpu; leave it out"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused_and_nothing_is_written(
    options: tuple[str, ...], said: str, start: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out.npz"
    assert said in refusal("rollout", *start, "--actions", SCRIPT, "--out", out, *options)
    assert not out.exists()


def test_the_larger_size_is_described_without_its_memory() -> None:
    save_world_config(random_world("wan-14b"))
    here = {entry.name: entry for entry in scan_worlds()[0]}
    assert 14e9 < here["wan-14b-random"].parameters < 15e9
