"""Ctrl-C, SIGTERM and a hang-up alike put away what was begun, keep what was finished, and are said."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from playhead.engine.recording.finding import Summary
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.world import interrupts
from playhead.world.checkpoint import save_weights
from playhead.world.training.collect import is_whole
from playhead.world.training.encoded import keep_encoded
from playhead.world.training.footage import Footage
from playhead.world.world import World

ROOT = Path(__file__).parents[1]
SAID = "playhead: interrupted; what was finished is kept"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")
signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


def interrupted(
    number: int, begun: Callable[[], object], *command: str, group: bool = False, **options
) -> subprocess.CompletedProcess[str]:
    """Runs a command and sends it, or its whole group, a signal as soon as something has begun."""
    env = {**os.environ, "SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "main.py", *command], cwd=ROOT, env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not begun() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    (os.killpg if group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@signals
@pytest.mark.parametrize("name", ["i.mp4", "i.npz"])
def test_a_rollout_leaves_no_draft_and_says_so(tmp_path, tiny_world_folder, tiny_scene, number, name):
    done = interrupted(
        number, lambda: any(tmp_path.iterdir()), "rollout", "--world", str(tiny_world_folder), "--scene",
        str(tiny_scene), "--actions", "w*100000", "--device", "cpu", "--out", str(tmp_path / name),
    )  # fmt: skip
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.splitlines()[-1] == SAID and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@signals
def test_a_play_keeps_its_recording(tmp_path, tiny_world_folder, tiny_scene, number):
    def ticks() -> int:
        return sum(Summary.read(file).ticks for file in tmp_path.glob("*.playhead"))

    done = interrupted(
        number, lambda: ticks() > 5, "play", "--world", str(tiny_world_folder), "--scene", str(tiny_scene),
        "--record", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.splitlines()[-1] == SAID and "Traceback" not in done.stderr
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".playhead" and ticks() > 5
    assert verify(Recording.read(file), World.load(tiny_world_folder)) is None


@pytest.mark.parametrize("group", [False, True], ids=["alone", "with its workers"])
def test_footage_is_whole_and_no_draft_of_it_is_left(tmp_path, group):
    pytest.importorskip("vizdoom", reason="needs vizdoom (the extra `train`)")
    out = tmp_path / "footage"
    done = interrupted(
        signal.SIGTERM, lambda: any(out.glob("*.npz")), "train", "collect", "--episodes", "600",
        "--length", "30", "--seed", "0", "--workers", "1", "--out", str(out), group=group,
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    assert "all whole" in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert all(is_whole(file, 30) for file in out.iterdir())


def test_a_worker_that_is_told_to_end_ends_the_filming(tmp_path):
    pytest.importorskip("vizdoom", reason="needs vizdoom (the extra `train`)")
    out = tmp_path / "footage"
    command = [
        sys.executable, "main.py", "train", "collect", "--episodes", "600", "--length", "30", "--seed", "0",
        "--workers", "2", "--out", str(out),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not any(out.glob("*.npz")) and process.poll() is None:
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    worker = next(child for child in family if "spawn_main" in " ".join(child.cmdline()))
    worker.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 129, err
    assert "all whole" in " ".join(err.split()) and "Traceback" not in err
    assert all(is_whole(file, 30) for file in out.iterdir())
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left


def test_a_program_that_is_to_survive_a_hang_up_does(tmp_path, tiny_world_folder, tiny_scene):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    done = interrupted(
        signal.SIGHUP, lambda: any(tmp_path.iterdir()), "rollout", "--world", str(tiny_world_folder),
        "--scene", str(tiny_scene), "--actions", "w*300", "--device", "cpu", "--out", str(tmp_path / "i.npz"),
        preexec_fn=ignore,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["i.npz"]


def test_a_second_signal_does_not_disturb_what_the_first_began():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.as_interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.status() == 143
    assert signal.getsignal(signal.SIGTERM) == before
    with interrupts.as_interrupts():
        assert interrupts.status() == 130


def test_no_lock_stays_taken_whenever_a_signal_comes():
    """A thread that waits for one would never end, nor would the program that waits for the thread."""
    pool = ThreadPoolExecutor(1)
    numbers = np.random.default_rng(0).random((64, 64))

    @interrupts.outside_locks
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        for _ in range(10):
            np.linalg.norm(numbers @ numbers)

    def works() -> bool:
        """Whether the pool still does work, in a while that nothing but a lost lock takes."""
        asks = threading.Thread(target=lambda: pool.submit(work).result(), daemon=True)
        asks.start()
        asks.join(30)
        return not asks.is_alive()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(1000):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.004))
                while True:
                    done = pool.submit(work)
                    work()
                    done.result()
            assert works()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("module", ["playhead.world.checkpoint", "playhead.world.training.encoded"])
def test_weights_and_latents_that_are_being_written_leave_no_draft(tmp_path, monkeypatch, module):
    def stop(tensors: object, path: Path, *more: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{module}.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        if module == "playhead.world.checkpoint":
            save_weights(tmp_path / "weights.safetensors", {"a": torch.zeros(1)})
        else:
            frames, held = torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, 8)
            keep_encoded(tmp_path, "key", Footage(frames, held, [0], [""]), torch.zeros(2, 8, 4, 4))
    assert not list(tmp_path.iterdir())
