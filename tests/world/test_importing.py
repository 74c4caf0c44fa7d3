"""Public checkpoints are recognised by their keys, checked whole, and added whole or not at all."""

import contextlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from playhead.world import nvfp4
from playhead.world.checkpoint import read_weights
from playhead.world.generator import Generator
from playhead.world.importing import (
    ImportProblem,
    add_world,
    recognise,
    recognise_autoencoder,
)
from playhead.world.lighttae import LightTAE
from playhead.world.public import PUBLIC, tiny


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def checkpoint(config_name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return Generator(tiny(PUBLIC[config_name].config).generator).state_dict()


def wan_autoencoder(path: Path) -> Path:
    torch.save(LightTAE(PUBLIC["self-forcing"].config.autoencoder).state_dict(), path)
    return path


def wrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        f"model._fsdp_wrapped_module.{k.replace('blocks.', 'blocks.')}".replace(
            ".self_attn", "._checkpoint_wrapped_module.self_attn"
        ): v
        for k, v in tensors.items()
    }


@pytest.mark.parametrize("container", ["generator_ema", "generator", "state_dict", "model", ""])
def test_containers_and_prefixes_are_seen_through(container: str, tmp_path: Path) -> None:
    tensors = wrapped(checkpoint("self-forcing"))
    torch.save({container: tensors, "step": 3} if container else tensors, tmp_path / "self_forcing_dmd.pt")
    found = recognise(tmp_path / "self_forcing_dmd.pt")
    assert found.config.name == "self-forcing"
    assert found.weights["generator.safetensors"].keys() == checkpoint("self-forcing").keys()


@pytest.mark.parametrize("name", ["matrix-game-2", "matrix-game-2-gta", "matrix-game-2-templerun"])
def test_matrix_game_variants_are_told_apart_by_their_keys(name: str, tmp_path: Path) -> None:
    save_file({f"model.{k}": v for k, v in checkpoint(name).items()}, tmp_path / "x.safetensors")
    assert recognise(tmp_path / "x.safetensors").config.name == name


@pytest.mark.parametrize(("folder", "name"), [("1step", 1), ("2step", 2), ("stage3", 4), ("mine", 4)])
def test_students_of_forgewm_are_told_apart_by_their_folder_and_lose_the_keys_that_nobody_pressed(
    folder: str, name: int, tmp_path: Path
) -> None:
    """Their files have six inputs for keys, of which two were always zero in training: nothing is lost."""
    own = checkpoint(f"forgewm-{name}")
    padded, entering = dict(own), "action_model.keyboard_embed.0.weight"
    for key in [key for key in own if key.endswith(entering)]:
        padded[key] = torch.cat([own[key], torch.randn(own[key].shape[0], 2)], 1)
    (tmp_path / folder).mkdir()
    torch.save({"generator": wrapped(padded)}, tmp_path / folder / "model.pt")
    found = recognise(tmp_path / folder / "model.pt")
    assert found.config.name == f"forgewm-{name}"
    assert found.config.sampling == PUBLIC[f"forgewm-{name}"].config.sampling
    assert len(found.config.sampling.steps) == name
    assert ("folder" in found.why) == (folder != "mine") and ("--family" in found.why) == (folder == "mine")
    weights = found.weights["generator.safetensors"]
    assert weights.keys() == own.keys() and all(torch.equal(weights[key], own[key]) for key in own)


def test_the_second_weights_of_sgf_plus_serve_the_commit(tmp_path: Path) -> None:
    own, second = checkpoint("sgf-plus", 0), checkpoint("sgf-plus", 1)

    def twin(key: str) -> str:
        if key.startswith("blocks."):
            head, _, leaf = key.rpartition(".")
            return f"{head}.memory_{leaf}"
        return f"memory_{key}"

    torch.save({"generator_ema": {**own, **{twin(k): v for k, v in second.items()}}}, tmp_path / "model.pt")
    found = recognise(tmp_path / "model.pt")
    assert found.config.name == "sgf-plus"
    for file, tensors in (("generator.safetensors", own), ("commit.safetensors", second)):
        assert all(torch.equal(found.weights[file][k], v) for k, v in tensors.items())


def test_a_lora_is_merged_into_its_base(tmp_path: Path) -> None:
    base = checkpoint("longlive")
    key = "blocks.1.ffn.0"
    out, inside = base[f"{key}.weight"].shape
    down, up = torch.randn(4, inside), torch.randn(out, 4)
    lora = {
        f"base_model.model.{key}.lora_A.weight": down,
        f"base_model.model.{key}.lora_B.weight": up,
    }
    torch.save({"generator": base}, tmp_path / "longlive_base.pt")
    torch.save({"generator_lora": lora}, tmp_path / "lora.pt")
    found = recognise(tmp_path / "longlive_base.pt", lora=tmp_path / "lora.pt")
    assert found.config.name == "longlive"
    merged = found.weights["generator.safetensors"][f"{key}.weight"]
    assert torch.allclose(merged, base[f"{key}.weight"] + up @ down)
    with pytest.raises(ImportProblem, match="--lora"):
        recognise(tmp_path / "lora.pt")


def rounded(key: str, weight: torch.Tensor, flavour: str) -> dict[str, torch.Tensor]:
    """A weight as low-bit checkpoints of that flavour have it."""
    stem = key.removesuffix(".weight")
    if "nvfp4" in flavour:
        packed = nvfp4.quantise(weight, together=True)
        tiles = packed.blocks.view(-(-len(weight) // 128) * 128, -1)
        found = {key: packed.codes, f"{stem}.weight_scale": tiles}
        over, of_inputs = 1 / packed.scale[0, 0], torch.tensor(2688 / 3.0)
        if flavour == "nvfp4":
            return found | {f"{stem}.weight_global_scale": over, f"{stem}.input_absmax": torch.tensor(3.0)}
        calibrated = {"alpha": 1 / (over * of_inputs), "input_global_scale": of_inputs}
        return found | {f"{stem}.{name}": scale for name, scale in calibrated.items()}
    whole = flavour in ("comfy", "one scale")
    kind, top = (torch.int8, 127) if "int8" in flavour else (torch.float8_e4m3fn, 448)
    largest = weight.abs().max() if whole else weight.abs().amax(1, keepdim=True)
    scale = (largest / top).clamp_min(1e-12)
    scaled = weight / scale
    found = {key: (scaled.round() if kind == torch.int8 else scaled).to(kind)}
    if flavour == "comfy":
        return found | {f"{stem}.scale_weight": scale.reshape(1), f"{stem}.scale_input": torch.ones(1)}
    scale = scale.flatten() if flavour == "flat fp8" else scale
    return found | {f"{stem}.weight_scale": scale, f"{stem}.input_scale": torch.ones(1)}


LOW_BIT = ("fp8", "int8", "flat fp8", "one scale", "comfy", "nvfp4", "calibrated nvfp4")


def low_bit(flavour: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A tiny checkpoint in full and in that flavour."""
    full = checkpoint("self-forcing")
    found = {}
    for key, tensor in full.items():
        large = key.startswith("blocks.") and key.endswith(".weight") and tensor.ndim == 2
        found |= rounded(key, tensor, flavour) if large else {key: tensor.bfloat16()}
    if flavour == "comfy":
        found["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
        found = {f"model.diffusion_model.{key}": tensor for key, tensor in found.items()}
    return full, found


@pytest.mark.parametrize("flavour", LOW_BIT)
def test_low_bit_checkpoints_are_multiplied_by_their_scales(flavour: str, tmp_path: Path) -> None:
    full, tensors = low_bit(flavour)
    save_file(tensors, tmp_path / "x.safetensors")
    found = recognise(tmp_path / "x.safetensors").weights["generator.safetensors"]
    assert found.keys() == full.keys() and {t.dtype for t in found.values()} == {torch.bfloat16}
    for key, weight in full.items():
        if weight.any():
            error = (found[key].float() - weight).abs().sum() / weight.abs().sum()
            assert error < (0.12 if "nvfp4" in flavour else 0.05)


@pytest.mark.parametrize("flavour", ["nvfp4", "calibrated nvfp4"])
def test_numbers_of_four_bits_come_back_from_full_size_as_they_were(flavour: str, tmp_path: Path) -> None:
    """So to play such a checkpoint in NVFP4 is no second rounding."""
    full, tensors = low_bit(flavour)
    save_file(tensors, tmp_path / "x.safetensors")
    found = recognise(tmp_path / "x.safetensors").weights["generator.safetensors"]
    for key in full:
        if tensors[key].dtype == torch.uint8:
            again = nvfp4.quantise(found[key], together=True)
            kept = again._replace(codes=tensors[key])
            assert torch.equal(nvfp4.values(again), nvfp4.values(kept))  # a zero's sign may go
            assert torch.equal(again.blocks.float(), tensors[f"{key}_scale"].flatten().float())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("weight_global_scale", None, "has 4 bits without a `weight_global_scale`"),
        ("weight_global_scale", torch.tensor(0.0), "hold a NaN or an infinity"),
        ("weight_scale", torch.ones(64, 2).to(torch.float8_e4m3fn), r"of 4 bits here are read \d+ scales"),
        ("weight_scale", None, "is uint8 without a scale"),
    ],
)
def test_four_bits_with_scales_that_make_no_sense_are_refused(
    key: str, value: torch.Tensor | None, said: str, tmp_path: Path, own_home: Path
) -> None:
    tensors = low_bit("nvfp4")[1]
    tensors.pop(f"blocks.0.ffn.0.{key}")
    if value is not None:
        tensors[f"blocks.0.ffn.0.{key}"] = value
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ImportProblem, match=said):
        add_world(tmp_path / "x.safetensors", wan_autoencoder(tmp_path / "lighttaew2_1.pth"))
    assert not own_home.exists()


def test_a_low_bit_checkpoint_is_added_and_played(tmp_path: Path, own_home: Path) -> None:
    save_file(low_bit("int8")[1], tmp_path / "x.safetensors")
    folder, _ = add_world(tmp_path / "x.safetensors", wan_autoencoder(tmp_path / "lighttaew2_1.pth"))
    stored = read_weights(folder / "generator.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    assert not any("scale" in key for key in stored)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("blocks.0.ffn.0.weight_scale", torch.ones(4, 2), "scales of rows, or of a whole weight"),
        ("blocks.0.ffn.0.weight_scale", torch.tensor(float("nan")), "holds a NaN"),
        ("blocks.0.ffn.9.weight_scale", torch.ones(1), "`blocks.0.ffn.9.weight` is missing"),
        ("blocks.0.ffn.0.weight_scale", None, "is int8 without a scale"),
    ],
)
def test_scales_that_make_no_sense_are_refused(
    key: str, value: torch.Tensor | None, said: str, tmp_path: Path, own_home: Path
) -> None:
    tensors = low_bit("int8")[1]
    tensors.pop(key, None)
    if value is not None:
        tensors[key] = value
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ImportProblem, match=said):
        add_world(tmp_path / "x.safetensors", wan_autoencoder(tmp_path / "lighttaew2_1.pth"))
    assert not own_home.exists()


def test_what_does_not_fit_is_summed_up_and_nothing_is_left(tmp_path: Path, own_home: Path) -> None:
    tensors = checkpoint("self-forcing")
    tensors.pop("blocks.1.norm3.bias")
    tensors["extra.weight"] = torch.zeros(2)
    tensors["head.modulation"] = torch.zeros(1, 3, 64)
    torch.save(tensors, tmp_path / "x.pt")
    autoencoder = wan_autoencoder(tmp_path / "lighttaew2_1.pth")
    with pytest.raises(ImportProblem) as problem:
        add_world(tmp_path / "x.pt", autoencoder)
    for words in ("1 missing (blocks.1.norm3.bias)", "1 unexpected (extra.weight)", "head.modulation"):
        assert words in str(problem.value)
    assert "\n" not in str(problem.value)
    assert not own_home.exists()


class Hostile:
    """What unpickles into a call: of `touch` here, of anything elsewhere."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("shape", ["a bare pickle", "a torch archive", "inside a checkpoint", "as a LoRA"])
def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_never_runs(
    shape: str, tmp_path: Path, own_home: Path
) -> None:
    import pickle

    mark, file, lora = tmp_path / "it-ran", tmp_path / "self_forcing_dmd.pt", None
    if shape == "a bare pickle":
        file.write_bytes(pickle.dumps(Hostile(mark)))
    elif shape == "a torch archive":
        torch.save(Hostile(mark), file)
    else:
        torch.save({"generator_ema": checkpoint("self-forcing")}, file)
        spoilt = file
        if shape == "as a LoRA":
            spoilt = lora = tmp_path / "lora.pt"
        torch.save({"generator_ema": checkpoint("self-forcing"), "optimizer": Hostile(mark)}, spoilt)
    with pytest.raises(ImportProblem, match="weights only"):
        add_world(file, wan_autoencoder(tmp_path / "lighttaew2_1.pth"), lora=lora)
    assert not mark.exists()
    assert not own_home.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no archive, as is found out too late
        torch.load(lora or file, weights_only=False)  # the file is what it is meant to be
    assert mark.exists()


def test_broken_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10" * 40)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    whole = tmp_path / "whole.pt"
    torch.save(checkpoint("self-forcing"), whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:-5000])
    cases = {"cut.safetensors": "no checkpoint", "cut.pt": "no checkpoint", "none.pt": "missing"}
    for name, words in {**cases, "other.pt": "causal Wan"}.items():
        with pytest.raises(ImportProblem, match=words):
            recognise(tmp_path / name)


def test_an_added_world_has_the_files_weights_and_the_autoencoders_normalisation(tmp_path: Path) -> None:
    tensors = checkpoint("self-forcing")
    torch.save({"generator_ema": wrapped(tensors)}, tmp_path / "self_forcing_dmd.pt")
    for file, mean in (("lighttaew2_1.pth", -0.7571), ("taew2_1.pth", 0.0)):
        autoencoder = wan_autoencoder(tmp_path / file)
        folder, _ = add_world(tmp_path / "self_forcing_dmd.pt", autoencoder, name=file[:4], force=True)
        from playhead.world.checkpoint import read_weights
        from playhead.world.config import load_config

        assert load_config(folder / "world.toml").latent.mean[0] == mean
        stored = read_weights(folder / "generator.safetensors")
        assert all(torch.equal(stored[k], v.bfloat16()) for k, v in tensors.items())
        assert not list(folder.parent.glob(".*"))
    other = wan_autoencoder(tmp_path / "mine.pth")
    with pytest.raises(ImportProblem, match="--latents"):
        recognise_autoencoder(other)
