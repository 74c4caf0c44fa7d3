"""What a timeline writes is what was there, and takes nothing from those who compute the next tick."""

import subprocess
import sys

import pytest
import torch

from playhead.engine.timeline.store import _contiguous


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_what_lies_across_is_written_as_it_reads(dtype: torch.dtype) -> None:
    across = torch.arange(24).reshape(2, 3, 4).to(dtype).permute(2, 0, 1)
    assert _contiguous(across).is_contiguous() and torch.equal(_contiguous(across), across)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_writing_takes_no_team_of_torchs_threads() -> None:
    """A second team would be one more than there are cores: those of a tick would sleep at every turn."""
    code = """
import os, threading, torch
from playhead.engine.timeline.store import _contiguous
count = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
torch.ones(4_000_000).mul_(2)
across = torch.ones(1, 64, 160, 256).to(memory_format=torch.channels_last)
before, found = count(), []
writer = threading.Thread(target=lambda: (_contiguous(across), found.append(count())))
writer.start()
writer.join()
print(found[0] - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"  # the writer itself
