"""The state of a session on several ranks, made whole at the first one and dealt out again.

So a snapshot is what it is on one device: it may be kept, written to a file and read by another program.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from playhead.world.parallel.split import Split


@dataclass(frozen=True)
class Outline:
    """A tensor that another rank has."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def outline(state: Any) -> Any:  # noqa: ANN401 - states are nested
    """A whole state with every tensor's outline in its place."""
    if isinstance(state, Tensor):
        return Outline(tuple(state.shape), state.dtype)
    if isinstance(state, dict):
        return {key: outline(part) for key, part in state.items()}
    return [outline(part) for part in state] if isinstance(state, list) else state


def gather_state(split: Split, state: Mapping[str, Any]) -> dict[str, Any]:
    """The whole state, of each rank's own; at all but the first its outline. All ranks call it."""

    def join(name: str, x: Tensor) -> Tensor | Outline:
        cut = _cut(split, name)
        if cut is None or not x.numel():
            return x if split.leads else Outline(tuple(x.shape), x.dtype)
        dim, inner = cut
        parts = split.ranks.collect(x.contiguous())
        if parts is None:
            shape = (*x.shape[:dim], x.shape[dim] * split.ranks.size, *x.shape[dim + 1 :])
            return Outline(shape, x.dtype)
        return torch.cat([p.unflatten(dim, (-1, inner)) for p in parts], dim + 1).flatten(dim, dim + 1)

    return _each(state, "", join)  # type: ignore[no-any-return]  # a dict of a dict


def deal_state(split: Split, state: Mapping[str, Any]) -> dict[str, Any]:
    """Each rank's own part of a whole state, an `outline` at all but the first. All ranks call it."""
    ranks = split.ranks

    def take(name: str, x: Tensor | Outline) -> Tensor:
        cut = _cut(split, name)
        if cut is None or 0 in x.shape:
            mine = x if isinstance(x, Tensor) else torch.empty(x.shape, dtype=x.dtype, device=ranks.device)
            if mine.numel():
                mine = mine.contiguous()
                ranks.share(mine)
            return mine
        dim, inner = cut
        shape = (*x.shape[:dim], x.shape[dim] // ranks.size, *x.shape[dim + 1 :])
        parts = None
        if isinstance(x, Tensor):
            chunks = x.unflatten(dim, (-1, inner * ranks.size)).chunk(ranks.size, dim + 1)
            parts = [chunk.flatten(dim, dim + 1).contiguous() for chunk in chunks]
        mine = torch.empty(shape, dtype=x.dtype, device=ranks.device)
        ranks.deal(parts, mine)
        return mine

    whole = {**state, "decoder_memory": []}  # which the first rank alone has
    found: dict[str, Any] = _each(whole, "", take)
    return {**found, "decoder_memory": state["decoder_memory"] if split.leads else []}


def _cut(split: Split, name: str) -> tuple[int, int] | None:
    """The dimension of a tensor that ranks share, and how many entries of it, in a row, are one rank's.

    None where all of them have the same.
    """
    if name.startswith("/actions/mouse/"):  # a cache of its own for each token
        return 1, split.own_tokens
    if not name.startswith("/cache/"):
        return None
    first = 3 if name.startswith("/cache/far") else 2  # where heads stand, tokens behind them
    return (first, split.cache_heads) if split.by_heads else (first + 1, split.cache_tokens)


def _each(state: Any, name: str, change: Any) -> Any:  # noqa: ANN401 - states are nested
    """A nested state, its tensors changed by `change(name, tensor)`, always in the same order."""
    if isinstance(state, Tensor | Outline):
        return change(name, state)
    if isinstance(state, Mapping):
        return {key: _each(part, f"{name}/{key}", change) for key, part in state.items()}
    if isinstance(state, list):
        return [_each(part, f"{name}/{i}", change) for i, part in enumerate(state)]
    return state
