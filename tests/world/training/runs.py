"""What the tests of training look at: a tiny world's configuration, checkpoints and metrics."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.conftest import make_tiny_world

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
CONFIG = make_tiny_world(one_pass=True).config


def same(a: object, b: object) -> bool:
    """Whether two checkpoints or state dicts hold the same, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a == b


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What a run resumes from, but for the time it took."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["seconds"]
    return state


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
