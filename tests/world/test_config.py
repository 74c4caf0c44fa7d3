"""Settings that contradict each other are named; whatever a generator predicts, it returns the flow."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_tiny_world, save_world
from world.attention import attention
from world.config import WorldConfig, load_config
from world.errors import WorldError
from world.generator import Generator, GeneratorConfig
from world.kv_cache import Far
from world.training.pipeline import write_config

ONE_PASS = make_tiny_world(one_pass=True)
PLAIN = make_tiny_world()


def changed(config: WorldConfig, part: str, **changes: Any) -> WorldConfig:
    """The configuration with other settings in one of its parts, or in itself."""
    if not part:
        return msgspec.structs.replace(config, **changes)
    return msgspec.structs.replace(
        config, **{part: msgspec.structs.replace(getattr(config, part), **changes)}
    )


def far(**changes: Any) -> dict[str, Far]:
    return {"far": msgspec.structs.replace(Far(3, 4, (1,)), **changes)}


WRONG: list[tuple[WorldConfig, str, dict[str, Any], str]] = [
    (ONE_PASS.config, "generator", {"in_channels": 8, "predicts": "flow"}, "has to be 16, not 8"),
    (ONE_PASS.config, "generator", {"in_channels": 12}, "`generator.in_channels` has to be 16, not 12"),
    (ONE_PASS.config, "sampling", {"latents_per_tick": 3}, "one latent a tick"),
    (PLAIN.config, "generator", {"predicts": "change"}, "needs `sampling.previous`"),
    (ONE_PASS.config, "", {"commit_weights": "commit.safetensors"}, "no `commit_weights`"),
    (ONE_PASS.config, "sampling", {"first_steps": (1000.0,)}, "`first_steps`"),
    (ONE_PASS.config, "generator", {"text_dim": 8}, "text"),
    (ONE_PASS.config, "sampling", {"sink": 1}, "`sampling.far` goes with no sink"),
    (PLAIN.config, "sampling", {"sink": 1, **far()}, "`sampling.far` goes with no sink"),
    (ONE_PASS.config, "sampling", far(frames=0), "`frames` and `every` above 0"),
    (ONE_PASS.config, "sampling", far(every=0), "`frames` and `every` above 0"),
    (ONE_PASS.config, "sampling", far(layers=()), "`layers` from 0 to 1"),
    (ONE_PASS.config, "sampling", far(layers=(1, 2)), "`layers` from 0 to 1"),
    (ONE_PASS.config, "sampling", far(layers=(-1,)), "`layers` from 0 to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "part", "changes", "words"), WRONG, ids=[words for *_, words in WRONG])
def test_what_contradicts_itself_is_one_sentence(
    config: WorldConfig, part: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "world.toml"
    write_config(path, changed(config, part, **changes))
    with pytest.raises(WorldError) as said:
        load_config(path)
    (line,) = str(said.value).splitlines()
    assert line.startswith(f"{path} contradicts itself: ") and line.endswith("; correct it there")
    assert words in line


def test_a_one_pass_world_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = save_world(ONE_PASS, tmp_path / "world")
    assert load_config(folder / "world.toml") == ONE_PASS.config


numbers = st.floats(-3, 3, allow_subnormal=False)
Predicts = Literal["flow", "clean", "change"]


def flow_of(predicts: Predicts, head: float, noisy: float, before: float, sigma: float) -> torch.Tensor:
    """The flow of even latents from a generator whose layers compute the number `head` everywhere."""
    config: GeneratorConfig = msgspec.structs.replace(ONE_PASS.config.generator, predicts=predicts)
    model = Generator(config).requires_grad_(False)
    model.head.head.weight.zero_()
    model.head.head.bias.fill_(head)
    x = torch.cat([torch.full((1, 1, 8, 4, 4), noisy), torch.full((1, 1, 8, 4, 4), before)], 2)
    table = model.rope_table([0], 4, 4)
    told = torch.zeros(1, 1, config.told)
    return model(x, torch.full((1, 1), 1000 * sigma), table, lambda _, q, k, v: attention(q, k, v), told)


@given(noisy=numbers, before=numbers, clean=numbers, sigma=st.floats(0.02, 1))
def test_whatever_is_predicted_the_same_clean_latents_are_the_same_flow(
    noisy: float, before: float, clean: float, sigma: float
) -> None:
    wanted = torch.full((1, 1, 8, 4, 4), (noisy - clean) / sigma)
    heads: dict[Predicts, float] = {"flow": (noisy - clean) / sigma, "clean": clean, "change": clean - before}
    for predicts, head in heads.items():
        found = flow_of(predicts, head, noisy, before, sigma)
        assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-4), predicts
