"""Processes that train together share the work and keep the same weights."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from playhead.world.training.footage import Footage
from tests.world.game import write_footage
from tests.world.training.runs import CPU, ROOT, metrics, same
from tests.world.training.stages import Watched, autoencoder


def test_two_processes_share_the_work_and_keep_the_same_weights(tmp_path: Path) -> None:
    source = write_footage(tmp_path / "footage", 3, 24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += ["-m", "tests.world.training.group", str(source), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["frames"], second["frames"]) == (48, 24)  # episodes 0 and 2, and episode 1
    for stage in ("autoencoder", "generator"):
        assert same(first[stage], second[stage])
        assert [row["step"] for row in metrics(tmp_path / stage)] == [10, 14]
    # One of them was interrupted at step 3; both stopped, at the same later step.
    assert first["interrupted_at"] == second["interrupted_at"] == 10

    alone = autoencoder(Watched(tmp_path / "alone", 14), Footage.load(source, CPU))
    assert not same(alone.state_dict(), first["autoencoder"])  # the other's footage had a part in it
