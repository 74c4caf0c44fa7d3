"""Attention: the bfloat16 way of the CPU is close to the exact one, and only reads what it is given."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.engine.session import Session
from playhead.scenes.scene import scenes_of
from playhead.world import kv_cache
from playhead.world.action import Action
from playhead.world.attention import attention
from playhead.world.kv_cache import KVCache
from playhead.world.split_attention import PARTS, likely_parts
from playhead.world.world import World

modest = settings(max_examples=40, deadline=None)


class Shape(NamedTuple):
    """Queries of one block, and a cache of `capacity` tokens of which the first `keys` are visible."""

    batch: int
    heads: int
    queries: int
    keys: int
    capacity: int
    head_dim: int
    seed: int


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Any batch and head, from one key to more than the shipped world's window holds."""
    keys = draw(st.integers(1, 700))
    return Shape(
        batch=draw(st.integers(1, 3)),
        heads=draw(st.integers(1, 4)),
        queries=draw(st.integers(8, 60)),
        keys=keys,
        capacity=keys + draw(st.integers(0, 100)),
        head_dim=2 * draw(st.integers(4, 64)),
        seed=draw(st.integers(0, 2**32)),
    )


def draws(shape: Shape, sharpness: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """bfloat16 queries, and keys and values as views of a longer cache, the rest of which is no number."""
    draw = torch.Generator().manual_seed(shape.seed)
    queries = torch.randn((shape.batch, shape.heads, shape.queries, shape.head_dim), generator=draw)
    cache = torch.randn((2, shape.batch, shape.heads, shape.capacity, shape.head_dim), generator=draw)
    cache[:, :, :, shape.keys :] = torch.nan
    k, v = cache.to(torch.bfloat16)[..., : shape.keys, :].unbind()
    return (sharpness * queries).to(torch.bfloat16), k, v


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention by its definition, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Relative L1 error."""
    return float((found.double() - wanted).abs().sum() / wanted.abs().sum())


@pytest.mark.parametrize(("sharpness", "limit"), [(0.0, 0.01), (0.3, 0.01), (1.0, 0.01), (3.0, 0.03)])
@modest
@given(shape=shapes())
def test_bfloat16_on_the_cpu_is_close_to_exact(sharpness: float, limit: float, shape: Shape) -> None:
    """From equal weights on all keys (sharpness 0) to nearly all weight on one (3); within 1 % at 1."""
    q, k, v = draws(shape, sharpness)
    found = attention(q, k, v)
    assert found.dtype == torch.bfloat16
    assert found.shape == q.shape
    assert relative_error(found, exact(q, k, v)) < limit


def test_bfloat16_is_within_a_hundredth_of_exact_in_every_layer_of_the_shipped_world(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World.load("freedoom", "cpu", dtype=torch.bfloat16)
    world.side_by_side = False
    session = Session(world, scenes_of(world.config)[0].context, 0)
    errors: list[float] = []

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = attention(q, k, v)
        errors.append(relative_error(found, exact(q, k, v)))
        return found

    monkeypatch.setattr(kv_cache, "attention", watched)
    session.step(Action(frozenset({"forward"})))
    assert len(errors) == session.steps * world.config.generator.layers
    assert max(errors) < 0.01


def test_the_likeliest_numbers_of_parts_are_those_that_were_measured_to_be_fastest() -> None:
    """On an H200, of 12 heads: 4, 8, 3, 6, 2 in that order for 1,560 queries, 4 and 2 for three frames."""
    assert set(likely_parts(1560, 12, 132)) == {4, 8, 3} and likely_parts(1560, 12, 132)[0] == 4
    assert {4, 2} < set(likely_parts(3 * 1560, 12, 132))
    assert likely_parts(40, 8, 132)[0] == 8, "of hardly any queries as many parts as there may be"


@modest
@given(shapes(), st.sampled_from(sorted(PARTS)), st.sampled_from([torch.float32, torch.bfloat16]))
def test_keys_in_parts_are_the_same_keys(shape: Shape, backend: str, dtype: torch.dtype) -> None:
    """Whether they can be cut evenly or not, for one session and for several."""
    parts = PARTS[backend]
    for keys in (shape.keys * parts, shape.keys * parts + 1):
        q, k, v = (part.to(dtype) for part in draws(shape._replace(keys=keys, capacity=keys + 3)))
        found = attention(q, k, v, backend=backend)
        assert found.dtype == dtype and found.shape == q.shape
        assert relative_error(found, exact(q, k, v)) < (1e-5 if dtype == torch.float32 else 0.01)


@modest
@given(shapes())
def test_attention_only_reads(shape: Shape) -> None:
    """The cache must never change under attention, in either number type: or the past would be another."""
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = (part.to(dtype) for part in draws(shape))
        before = [part.clone() for part in (q, k, v)]
        first = attention(q, k, v)
        assert all(torch.equal(part, kept) for part, kept in zip((q, k, v), before, strict=True))
        assert torch.equal(first, attention(q, k, v))


@modest
@given(shapes())
def test_sessions_stepped_together_do_not_see_each_other(shape: Shape) -> None:
    q, k, v = draws(shape)
    together = attention(q, k, v)
    for i in range(shape.batch):
        alone = attention(q[i : i + 1], k[i : i + 1], v[i : i + 1])
        assert relative_error(together[i : i + 1], alone.double()) < 0.01


def test_a_window_that_fills_and_turns_over_stays_close_to_exact() -> None:
    """Through the cache itself: bfloat16 against float64 at every frame, before and after eviction."""
    tokens, heads, head_dim = 6, 2, 16
    cache = KVCache(
        layers=1,
        batch=2,
        heads=heads,
        frames=4,
        sink=1,
        tokens=tokens,
        head_dim=head_dim,
        dtype=torch.bfloat16,
    )
    draw = torch.Generator().manual_seed(0)
    for frame in range(9):
        q, k, v = torch.randn((3, 2, heads, tokens, head_dim), generator=draw).to(torch.bfloat16)
        cache.begin(1)
        found = cache.attend(0, q, k, v)
        cache.end()
        keys, values = cache.ordered(0)
        assert keys.shape[2] == tokens * min(frame + 1, 4)
        assert relative_error(found, exact(q, keys, values)) < 0.01


def test_a_mask_hides_what_it_says_in_either_number_type() -> None:
    """Training's mask: the same as attending to the keys that it lets through."""
    draw = torch.Generator().manual_seed(0)
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = torch.randn((3, 2, 3, 8, 16), generator=draw).to(dtype)
        mask = torch.zeros(8, 8, dtype=torch.bool)
        mask[:, [0, 3, 4]] = True
        found = attention(q, k, v, mask)
        assert relative_error(found, exact(q, k[:, :, [0, 3, 4]], v[:, :, [0, 3, 4]])) < 0.01


def test_a_backend_that_is_not_known_is_refused() -> None:
    """Not computed by torch's own choice under that name."""
    q = torch.ones(1, 1, 2, 4)
    with pytest.raises(ValueError, match="no attention backend fancy"):
        attention(q, q, q, backend="fancy")
