"""The parity tool accepts what the references computed, and nothing else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tools import golden_format, parity

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
AUTOENCODERS = ("lighttae", "lightvae", "wanvae-small")
FOLDERS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a golden folder to where it may be spoilt."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(GOLDEN / name, tmp_path / name))

    return make


def edit_meta(folder: Path, edit: Callable[[dict], object]) -> None:
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    edit(meta)
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")


def edit_tensors(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "io.safetensors")
    edit(tensors)
    save_file(tensors, folder / "io.safetensors")


def fails(folder: Path, capsys: pytest.CaptureFixture[str], naming: str) -> bool:
    """Whether the tool exits with 1, its last line FAIL and a line that names `naming` marked FAIL."""
    status = parity.main([str(folder)])
    lines = capsys.readouterr().out.splitlines()
    return status == 1 and lines[-1] == "FAIL" and any(naming in li and li.endswith("FAIL") for li in lines)


def refuses(folder: Path, capsys: pytest.CaptureFixture[str], naming: str) -> bool:
    """Whether the tool exits with 2 and one line that names `naming`, printing no table."""
    status = parity.main([str(folder)])
    out, err = capsys.readouterr()
    return status == 2 and out == "" and err.count("\n") == 1 and naming in err


@pytest.mark.parametrize("name", FOLDERS)
def test_the_classes_of_play_reproduce_the_reference(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Within 1e-5, ten times closer than the folders ask for."""
    assert parity.main([str(GOLDEN / name), "--atol", "1e-5"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "pass"
    meta = json.loads((GOLDEN / name / "meta.json").read_text("utf-8"))
    for stored in meta["outputs"] + meta["traces"]:
        assert f"\n{stored} " in out, f"{stored} was not compared"


@pytest.mark.parametrize("name", [name for name in FOLDERS if name not in AUTOENCODERS])
def test_fused_passes_reproduce_the_reference(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the twins of their kernels: all that they return and all that they leave in a cache."""
    assert parity.main([str(GOLDEN / name), "--fused", "--atol", "1e-5"]) == 0
    out = capsys.readouterr().out
    meta = json.loads((GOLDEN / name / "meta.json").read_text("utf-8"))
    for stored in meta["outputs"] + [trace for trace in meta["traces"] if trace.startswith("trace.")]:
        assert f"\n{stored} " in out, f"{stored} was not compared"


def test_fused_passes_are_others_and_held_to_the_limits(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = GOLDEN / "matrixgame2-gta-small"
    plain, fused = (parity.check(folder, fused=way) for way in (False, True))
    assert plain.rows[0] != fused.rows[0] and plain.rows[0].name == fused.rows[0].name
    assert parity.main([str(folder), "--fused", "--rel-l2", "1e-9"]) == 1
    spoilt = copy(folder.name)
    edit_tensors(spoilt, lambda tensors: tensors["output_latents"].view(-1)[3].add_(1e-3))
    assert parity.main([str(spoilt), "--fused"]) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        *((name, ["--fused"], "an autoencoder has no fused passes") for name in AUTOENCODERS),
        ("lighttae", ["--device", "meta"], "compared on cpu and cuda, not on meta"),
        ("lighttae", ["--device", "abacus"], "`abacus`"),
    ],
)
def test_where_and_how_it_cannot_be_run_is_one_sentence(
    name: str, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity.main([str(GOLDEN / name), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and named in err


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("selfforcing-framewise-small", "output_latents"),
        ("selfforcing-rolling-small", "trace.kv_layer0_v_final"),
        ("matrixgame2-gta-small", "trace.kv_mouse_layer0_k_final"),
        ("lighttae", "decode.video_streaming"),
        ("lighttae", "encode.latents"),
    ],
)
def test_a_single_altered_value_fails(
    name: str, tensor: str, copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(name)
    edit_tensors(folder, lambda tensors: tensors[tensor].view(-1)[7].add_(1e-3))
    assert fails(folder, capsys, naming=tensor)


def test_a_value_that_is_no_number_fails(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("lighttae")
    edit_tensors(folder, lambda tensors: tensors["encode.latents"].view(-1)[0].fill_(float("nan")))
    assert fails(folder, capsys, naming="encode.latents")


def test_a_slightly_wrong_weight_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = golden_format.weight

    def wrong(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
        return recipe(key, shape, seed) * (1.001 if key == "blocks.1.ffn.0.weight" else 1)

    monkeypatch.setattr(golden_format, "weight", wrong)
    assert fails(GOLDEN / "selfforcing-rolling-small", capsys, naming="output_latents")


def test_weights_of_another_seed_fail_the_weight_checks(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("lighttae")
    edit_meta(folder, lambda meta: meta.update(SEED=meta["SEED"] + 1))
    assert fails(folder, capsys, naming="weight encoder.0.weight")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda keys: keys.pop("head.head.bias"), "head.head.bias"),
        (lambda keys: keys.update({"blocks.9.modulation": [1, 6, 256]}), "blocks.9.modulation"),
        (lambda keys: keys.update({"head.modulation": [1, 3, 256]}), "head.modulation"),
    ],
    ids=["missing", "surplus", "shape"],
)
def test_a_key_listing_that_differs_from_the_model_fails(
    edit: Callable[[dict], object],
    named: str,
    copy: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copy("selfforcing-framewise-small")
    edit_meta(folder, lambda meta: edit(meta["keys"]))
    assert fails(folder, capsys, naming=f"key {named}")


@pytest.mark.parametrize(
    ("name", "section", "setting"),
    [
        ("selfforcing-rolling-sink-small", "config", {"sink_size": 0}),
        ("selfforcing-rolling-small", "config", {"local_attn_size": 5}),
        ("selfforcing-block3-small", "schedule", {"context_noise": 100}),
        ("selfforcing-framewise-small", "schedule", {"timestep_shift": 8.0}),
        ("matrixgame2-gta-small", "config", {"local_attn_size": 5}),
    ],
)
def test_settings_are_read_from_the_folder(
    name: str, section: str, setting: dict, copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Were a sink, a window or a schedule built in, changing it in meta.json would change nothing."""
    folder = copy(name)
    edit_meta(folder, lambda meta: meta[section].update(setting))
    assert fails(folder, capsys, naming="output_latents")


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refuses(tmp_path / "nowhere", capsys, naming="nowhere")
    assert refuses(tmp_path, capsys, naming="meta.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"kind": "rollout"}', "\xff"])
def test_a_meta_json_of_something_else_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meta.json").write_text(text, "latin-1")
    assert refuses(tmp_path, capsys, naming="meta.json")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda meta: meta.update(family="matrix-game-3"), "matrix-game-3"),
        (lambda meta: meta.update(family="matrix-game-2"), "noise"),
        (lambda meta: meta.pop("config"), "config"),
        (lambda meta: meta["config"].update(dim="wide"), "dim"),
        (lambda meta: meta["config"].update(num_heads=3), "heads"),
        (lambda meta: meta["config"].update(sink_size=4), "sink_size"),
        (lambda meta: meta["pipeline"].update(num_frame_per_block=5, kv_cache_frames=9), "block"),
        (lambda meta: meta["pipeline"].update(latent_height=7), "noise"),
        (lambda meta: meta["schedule"].update(warp_denoising_step=False), "schedule"),
        (lambda meta: meta["outputs"].append("other_latents"), "other_latents"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_description_that_cannot_be_run_is_refused_naming_the_field(
    edit: Callable[[dict], object],
    named: str,
    copy: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copy("selfforcing-rolling-small")
    edit_meta(folder, edit)
    assert refuses(folder, capsys, naming=named)


def test_tensors_that_are_missing_or_damaged_are_refused(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy("selfforcing-rolling-small")
    edit_tensors(folder, lambda tensors: tensors.pop("renoise"))
    assert refuses(folder, capsys, naming="renoise")
    (folder / "io.safetensors").write_bytes(b"\x00" * 100)
    assert refuses(folder, capsys, naming="io.safetensors")
    (folder / "io.safetensors").unlink()
    assert refuses(folder, capsys, naming="io.safetensors")


def test_the_command_line_gives_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.parity", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
