"""Settings that contradict each other are named; whatever a generator predicts, it returns the flow."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from playhead.world.attention import attention
from playhead.world.config import WorldConfig, load_config
from playhead.world.errors import WorldError
from playhead.world.generator import Generator, GeneratorConfig
from playhead.world.kv_cache import FarMemory
from playhead.world.public import PUBLIC
from playhead.world.training.pipeline import write_config
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world

ONE_PASS = make_tiny_world(one_pass=True)
PLAIN = make_tiny_world()


def changed(config: WorldConfig, part: str, **changes: Any) -> WorldConfig:
    """The configuration with other settings in one of its parts, or in itself."""
    if not part:
        return msgspec.structs.replace(config, **changes)
    return msgspec.structs.replace(
        config, **{part: msgspec.structs.replace(getattr(config, part), **changes)}
    )


def far(**changes: Any) -> dict[str, FarMemory]:
    return {"far": msgspec.structs.replace(FarMemory(3, 4, (1,)), **changes)}


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


ENDLESS: list[tuple[str, dict[str, Any], str]] = [
    ("", {"ticks_per_second": float("nan")}, "`ticks_per_second` is nan"),
    ("", {"ticks_per_second": float("inf")}, "`ticks_per_second` is inf"),
    ("", {"ticks_per_second": 1e9}, "$.ticks_per_second"),
    ("", {"rest_after": 2**40}, "$.rest_after"),
    ("latent", {"mean": (float("nan"),) * 8}, "`latent.mean` is nan"),
    ("latent", {"std": (1e300,) * 8}, "`latent.std` is 1e+300"),
    ("sampling", {"window": 2_000_000_000}, "$.sampling.window"),
    ("sampling", {"shift": float("nan")}, "`sampling.shift` is nan"),
    ("sampling", {"steps": (float("nan"),)}, "`sampling.steps` is nan"),
    ("sampling", far(frames=2**31), "$.sampling.far.frames"),
    ("generator", {"dim": 2**62}, "$.generator.dim"),
    ("generator", {"layers": 100_000_000}, "$.generator.layers"),
    ("generator", {"layers": 60_000}, "more than 1024"),
    ("autoencoder", {"decoder_widths": (2**40,) * 4}, "$.autoencoder.decoder_widths"),
    ("", {"generator_weights": "/etc/passwd"}, "a file beside it"),
    ("", {"generator_weights": "../other/generator.safetensors"}, "a file beside it"),
    ("", {"expert_weights": ("..\\e.safetensors",)}, "a file beside it"),
    ("", {"autoencoder_weights": "random:" + "9" * 5000}, "names no seed"),
    ("", {"autoencoder_weights": f"random:{2**64}"}, "names no seed"),
]


@pytest.mark.parametrize(("part", "changes", "words"), ENDLESS)
def test_every_number_of_a_file_has_an_end_and_every_file_lies_beside_it(
    part: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "world.toml"
    steps = {"sampling": msgspec.structs.replace(PLAIN.config.sampling, steps=(1000.0, 500.0))}
    config = changed(PLAIN.config, "", **(steps if "expert_weights" in changes else {}))
    write_config(path, changed(config, part, **changes))
    with pytest.raises(WorldError) as said:
        load_config(path)
    (line,) = str(said.value).splitlines()
    assert words in line and line.endswith("; correct it there") and len(line) < 500


@pytest.mark.parametrize(
    "changes",
    [{"dim": 65_536, "heads": 512, "ffn_dim": 65_536, "layers": 1024}, {"window": 65_536}],
    ids=["weights", "cache"],
)
def test_a_world_that_no_memory_holds_is_refused_before_that_is_taken(changes: dict, tmp_path: Path) -> None:
    config = PUBLIC["self-forcing"].config
    seeds = {"generator_weights": "random:0", "autoencoder_weights": "random:1"}
    part = "generator" if "dim" in changes else "sampling"
    (tmp_path / "huge").mkdir()
    write_config(tmp_path / "huge" / "world.toml", changed(changed(config, part, **changes), "", **seeds))
    with pytest.raises(WorldError, match=r"needs [\d,.]+ GiB of memory, of which cpu has"):
        World.load(tmp_path / "huge", device="cpu")


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
