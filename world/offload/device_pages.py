"""How torch takes a GPU's memory where a budget leaves little of it."""

import contextlib
import os

import torch

SETTING = "expandable_segments:True"
NAMES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""What users set by themselves."""


def share_pages() -> None:
    """Has torch's allocator grow and shrink its segments by pages, where nobody said how it should work.

    Segments of a fixed size stay with the process once anything lies in them: of a world of 2.75 GB 3.7 were
    taken on an H200, and within a budget that much less was left to record passes in.
    """
    if any(name in os.environ for name in NAMES):
        return
    with contextlib.suppress(AttributeError, RuntimeError):  # a torch that has no such setting does without
        torch.cuda.memory._set_allocator_settings(SETTING)
