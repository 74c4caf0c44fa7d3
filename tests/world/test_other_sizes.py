"""Folders of the golden format with other sizes, depths, windows, lengths and seeds pass as well.

Their numbers come from `tests.tools.plain_wan`, which is held to the references' own folders first.
"""

from pathlib import Path

import pytest
import torch

from tests.tools import parity
from tests.tools.golden_format import Header, RolloutMeta, read_meta, read_tensors
from tests.tools.plain_wan import listing, make_folder, play

GOLDEN = Path(__file__).parents[1] / "golden"
ROLLOUTS = [
    folder.name
    for folder in sorted(GOLDEN.iterdir())
    if read_meta(folder / "meta.json", Header).kind == "rollout"
]
FOUR, THREE, TWO, ONE = (1000, 750, 500, 250), (1000, 666, 333), (1000, 500), (1000,)


def text(dim: int, heads: int, layers: int, window: int, sink: int = 0, **more: int) -> dict:
    sizes = {"ffn_dim": 3 * dim, "in_dim": 16, "out_dim": 16, "freq_dim": 64, "text_dim": 24, "text_len": 9}
    sizes |= {"dim": dim, "num_heads": heads, "num_layers": layers, "eps": 1e-6}
    return {**sizes, "local_attn_size": window, "sink_size": sink, **more}


def game(dim: int, heads: int, layers: int, window: int, blocks: list[int], mouse: int, keys: int) -> dict:
    action = {"blocks": blocks, "heads_num": 3, "hidden_size": 20, "windows_size": 3}
    action |= {"vae_time_compression_ratio": 4, "rope_theta": 256, "rope_dim_list": [8, 4, 4]}
    action |= {"img_hidden_size": dim, "keyboard_dim_in": keys, "keyboard_hidden_dim": 48}
    action |= {"enable_keyboard": bool(keys), "enable_mouse": bool(mouse), "mouse_dim_in": mouse}
    action |= {"mouse_hidden_dim": 48, "mouse_qk_dim_list": [8, 4, 4]} if mouse else {}
    image = {"model_type": "i2v", "in_dim": 36, "clip_dim": 40, "action_config": action}
    return {**text(dim, heads, layers, window), "text_dim": 0, **image}


def rollout(block: int, latents: int, height: int, width: int, given: int = 0, cache: int = 21) -> dict:
    return {
        "num_frame_per_block": block, "num_latent_frames": latents, "latent_height": height,
        "latent_width": width, "kv_cache_frames": cache, "num_initial_latent_frames": given,
        "independent_first_frame": bool(given % block),
    }  # fmt: skip


def steps(listed: tuple[int, ...], shift: float = 5.0, noise: float = 0.0) -> dict:
    return {"denoising_step_list": listed, "timestep_shift": shift, "context_noise": noise}


CASES = {
    "narrow heads, five layers, odd window": (
        "self-forcing", text(60, 5, 5, 5), rollout(1, 11, 4, 6), steps(FOUR)
    ),
    "blocks of two, a sink, another shift": (
        "self-forcing", text(96, 3, 2, 7, 3), rollout(2, 14, 6, 4), steps(TWO, 8.0)
    ),
    "blocks of three and a window that splits one": (
        "self-forcing", text(64, 2, 2, 8, 1), rollout(3, 15, 2, 10), steps(THREE, 3.0)
    ),
    "one step, context noise, one layer": (
        "self-forcing", text(32, 1, 1, 4), rollout(1, 9, 8, 2), steps(ONE, 5.0, 40.0)
    ),
    "a single given frame before blocks": (
        "self-forcing", text(48, 2, 3, 6), rollout(3, 9, 4, 4, given=4), steps(TWO)
    ),
    "no window, larger patches": (
        "self-forcing", text(48, 2, 2, -1, patch_size=(1, 4, 4)), rollout(1, 6, 8, 8, cache=6), steps(FOUR)
    ),
    "keyboard and mouse, single latents": (
        "matrix-game-2", game(48, 2, 3, 5, [0, 2], 2, 4), rollout(1, 8, 4, 6), steps(THREE)
    ),
    "the mouse alone, blocks of two": (
        "matrix-game-2", game(64, 4, 2, 5, [1], 3, 0), rollout(2, 8, 6, 4), steps(TWO)
    ),
    "the keyboard alone, blocks of three": (
        "matrix-game-2", game(36, 3, 3, 4, [0, 1, 2], 0, 9), rollout(3, 12, 2, 6), steps(FOUR)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROLLOUTS)
def test_the_second_opinion_agrees_with_the_references(name: str) -> None:
    meta, io = (
        read_meta(GOLDEN / name / "meta.json", RolloutMeta),
        read_tensors(GOLDEN / name / "io.safetensors"),
    )
    assert listing(meta.config) == meta.keys
    wanted = io["output_latents"][0]
    wanted = wanted.transpose(0, 1) if meta.family == "matrix-game-2" else wanted
    assert torch.allclose(play(meta, io), wanted, atol=5e-6, rtol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [3, 2024])
def test_any_folder_of_the_format_passes(
    case: str, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family, config, pipeline, schedule = CASES[case]
    meta = {"family": family, "config": config, "pipeline": pipeline, "schedule": schedule}
    folder = make_folder(tmp_path / "folder", meta, seed)
    assert parity.main([str(folder)]) == 0, capsys.readouterr()
