"""A session on several ranks: what one device dreams, the same every time, and a sentence when one is gone.

Ranks are processes of the CPU here, which gloo connects; on GPUs the same is `tests.tools.parallel_on_gpu`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from msgspec import to_builtins

from playhead.engine.recording.reader import Recording
from playhead.scenes.scene import context_arrays
from playhead.world import acceleration
from playhead.world.randomise import random_context, random_world
from playhead.world.world import World
from tests.command_line import MAIN, ONE_THREAD, ROOT, Start, refusal, run
from tests.conftest import make_tiny_context, make_tiny_world, save_world
from tests.engine.parallel.on_ranks import play

CLOSE = 2
"""Grey levels of 255 that rounding may make, in float32, of sums that are added up in another order."""
NO_GPU = {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}


def save_start(folder: Path, name: str) -> Start:
    """A tiny world of a public one's kind, or `one-pass`, and a context of it."""
    folder.mkdir(exist_ok=True)
    world, context = folder / "world", make_tiny_context()
    if name == "one-pass":
        save_world(make_tiny_world(one_pass=True), world)
    else:
        config = random_world(name, small=True)
        world.mkdir()
        (world / "world.toml").write_text(tomli_w.dumps(to_builtins(config)), "utf-8")
        context = random_context(config)
    np.savez(folder / "context.npz", **context_arrays(context))  # type: ignore[arg-type]
    return Start(world, folder / "context.npz")


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return save_start(tmp_path / "start", "one-pass")


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("self-forcing", 2), ("matrix-game-2", 2), ("one-pass", 2), ("causal-forcing", 3)],
    ids=["chunks and prompts", "keyboard and mouse", "a far memory", "heads that do not divide"],
)
def test_ranks_play_what_one_device_plays(name: str, ranks: int, tmp_path: Path) -> None:
    start = save_start(tmp_path, name)
    out = tmp_path / "several.npz"
    command = [sys.executable, "-m", "tests.engine.parallel.on_ranks"]
    given = [str(start.world), str(start.context), str(ranks), str(out)]
    many = {**ONE_THREAD, "OMP_NUM_THREADS": str(acceleration.cores() + 1)}
    done = subprocess.run([*command, *given], cwd=ROOT, env=many, timeout=300, capture_output=True)
    assert not done.returncode, done.stderr.decode()
    several = np.load(out)
    # Ranks that have more threads than there are cores wait for each other's.
    assert several["threads"] == max(1, acceleration.cores() // ranks)
    one = play(World.load(start.world, "cpu", torch.float32), start.context)
    for part in ("ticks", "retraced", "other"):
        assert np.abs(one[part].astype(int) - several[part]).max() <= CLOSE, part
    assert np.allclose(one["keys"], several["keys"], atol=1e-3)  # a snapshot is that of one device
    assert np.array_equal(several["again"], several["ticks"])
    for way in ("forked", "returned"):
        assert np.array_equal(several[way], several["ticks"][-len(several[way]) :]), way


def test_a_recording_by_torchrun_replays_exactly_on_as_many_ranks_and_names_the_number_on_one(
    start: Start, tmp_path: Path
) -> None:
    kept, frames = tmp_path / "kept.playhead", tmp_path / "frames.npz"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = map(str, start.rollout("w*6", frames, "--gpus", 2, "--record", kept))
    done = subprocess.run(
        [*torchrun, MAIN[1], *command], env=ONE_THREAD, timeout=300, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    assert done.stdout.count("frames in") == 1  # the first rank's alone
    known = ("replay", kept, "--verify", "--world", start.world, "--device", "cpu")
    done = run(*known, "--gpus", 2)
    assert not done.returncode, done.stderr
    assert "6 ticks, every frame equal" in done.stdout
    done = run(*known)
    assert done.returncode == 2
    assert "the number of GPUs (recorded 2, here 1)" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to find what was started")
def test_a_rank_that_is_killed_ends_the_session_in_a_sentence_and_leaves_the_recording_whole(
    start: Start, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.playhead"
    command = [
        *MAIN,
        *map(str, start.rollout("w*50000", tmp_path / "out.npz", "--gpus", 2, "--record", kept)),
    ]
    process = subprocess.Popen(
        command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None and count_ticks(kept) < 5:
            time.sleep(0.2)
        (rank,) = ranks_of(process.pid)
        os.kill(rank, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    (sentence,) = [line for line in said.splitlines() if line.startswith("playhead: ")]
    assert "rank 1 of 2 has ended, by signal 9" in sentence
    assert "Traceback" not in said
    recording = Recording.read(kept)
    assert recording.sealed and recording.tree.count >= 5


def test_ranks_end_with_the_program_that_started_them(start: Start, tmp_path: Path) -> None:
    kept = tmp_path / "kept.playhead"
    command = [
        *MAIN,
        *map(str, start.rollout("w*50000", tmp_path / "out.npz", "--gpus", 2, "--record", kept)),
    ]
    process = subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and count_ticks(kept) < 1:
            time.sleep(0.2)
        (rank,) = ranks_of(process.pid)
    finally:
        process.kill()
        process.wait()
    while alive(rank):  # the suite's own limit of time says if it never is
        time.sleep(0.1)


def test_a_decoder_on_another_device_shows_the_same(start: Start) -> None:
    """A CPU has one device, but `cpu:0` is taken for another."""
    here = play(World.load(start.world, "cpu", torch.float32), start.context)
    world = World.load(start.world, "cpu", torch.float32, decoder_device="cpu:0")
    assert world.shown_on is not None
    there = play(world, start.context)
    assert all(np.array_equal(here[part], there[part]) for part in here)


def test_what_cannot_be_split_is_refused_in_a_sentence(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    said = refusal(*start.rollout("w", out, "--gpus", 3))
    assert "has 4 tokens a frame, which --gpus 3 does not divide; take one of 1, 2, 4" in said
    assert "--gpus" in refusal(*start.rollout("w", out, "--gpus", 2, "--ram", "1GB"))
    assert "leave out --device cpu:0" in refusal(
        *start.rollout("w", out, "--gpus", 2)[:-4], "--device", "cpu:0", "--gpus", 2
    )


def test_gpus_that_are_not_there_are_refused_in_a_sentence(start: Start, tmp_path: Path) -> None:
    command = start.rollout("w", tmp_path / "out.npz", "--gpus", 2)
    given = [str(word) if word != "cpu" else "auto" for word in command]
    done = subprocess.run([*MAIN, *given], env=NO_GPU, timeout=120, capture_output=True, text=True)
    assert done.returncode == 2
    wanted = "--gpus 2 needs 2 NVIDIA GPUs, and there are none here; take fewer, or --device cpu"
    assert wanted in done.stderr and len(done.stderr.splitlines()) == 1


def count_ticks(recording: Path) -> int:
    """How many ticks a recording has that is being written."""
    with contextlib.suppress(Exception):
        return Recording.read(recording).tree.count
    return 0


def ranks_of(process: int) -> list[int]:
    """The ranks that a process started."""
    return [child for child, parent, line in running() if parent == process and b"spawn_main" in line]


def alive(process: int) -> bool:
    return any(number == process for number, _, line in running() if line)  # a zombie has no command line


def running() -> Iterator[tuple[int, int, bytes]]:
    """Processes: their number, their parent's, their command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            yield int(entry.name), parent, (entry / "cmdline").read_bytes()
