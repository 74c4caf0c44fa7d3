"""The encoders, by the real architectures with small random weights: what they make is what Wan is given."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from playhead.scenes.encoders import CLIP_MEAN, CLIP_STD, Encoders, make_context
from playhead.scenes.scene import SceneError
from playhead.world import checkpoint
from playhead.world.encoding import FrameEncoder
from playhead.world.errors import WorldError
from playhead.world.lighttae import LightTAE
from playhead.world.randomise import random_world
from playhead.world.wan_vae import WanVAE


@pytest.fixture
def encoders(encoders_folder: Path) -> Encoders:
    return Encoders(str(encoders_folder), str(encoders_folder))


def frame_encoder(name: str) -> FrameEncoder:
    config = random_world(name, small=True)
    torch.manual_seed(0)
    return FrameEncoder(config, LightTAE(config.autoencoder), torch.device("cpu"), torch.float32)


def test_a_prompts_rows_are_those_of_the_padded_and_masked_text(
    encoders: Encoders, encoders_folder: Path
) -> None:
    """Wan pads to the full length, masks, and cuts the padding's rows away again."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoders_folder / "tokenizer")
    model = transformers.UMT5EncoderModel.from_pretrained(
        encoders_folder / "text_encoder", dtype=torch.bfloat16
    )
    said = "waves at a coast"
    padded = tokenizer(said, return_tensors="pt", padding="max_length", max_length=30)
    count = int(padded["attention_mask"].sum())
    with torch.inference_mode():
        wanted = model(**padded).last_hidden_state[0, :count].float().numpy()
    (found,) = encoders.prompts((said,), 30)
    assert 0 < count < 30
    assert found.shape == (count, 32)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_prompt_ends_in_its_end_mark_and_is_cut_to_the_rows_that_fit(encoders: Encoders) -> None:
    whole, cut = (encoders.prompts(("the same coast in a storm",), rows)[0] for rows in (512, 6))
    assert len(cut) == 6 < len(whole)
    tokenizer = encoders._text[0]
    ids = tokenizer("the same coast in a storm", truncation=True, max_length=6)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id


def test_blanks_and_html_in_a_prompt_do_not_count(encoders: Encoders) -> None:
    plain, odd = encoders.prompts(("lamps & snow", "  lamps &amp;amp;\n snow "), 512)
    assert np.array_equal(plain, odd)


def test_features_are_the_last_but_one_layers_of_the_squeezed_picture(
    encoders: Encoders, encoders_folder: Path
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    model = transformers.CLIPVisionModel.from_pretrained(encoders_folder / "image_encoder").eval()
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    pixels = torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic")
    pixels = (pixels - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    layers = []
    for layer in model.modules():
        if type(layer).__name__ == "CLIPEncoderLayer":
            layer.register_forward_hook(lambda _m, _i, out: layers.append(out))
    with torch.inference_mode():
        model(pixel_values=pixels)
    wanted = layers[-2][0] if layers[-2].ndim == 3 else layers[-2]
    found = encoders.features(picture)
    assert found.shape == (257, 40)
    assert np.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("whose", ["the world's own", "the full Wan VAE"])
def test_a_condition_stays_the_same_from_its_last_latent_on(
    whose: str, encoders_folder: Path, tmp_path: Path
) -> None:
    """So the last of its thirty latents may be repeated without end."""
    world = frame_encoder("matrix-game-2")
    encoders = Encoders(vae=str(encoders_folder) if "full" in whose else None)
    clip = np.full((1 + 4 * 35, 64, 96, 3), 0.5, np.float32)
    clip[0] = np.random.default_rng(0).random((64, 96, 3))
    z = encoders.latents(world, clip)
    assert z.shape == (36, 16, 8, 12)
    assert np.abs(z[30:] - z[29]).max() < 1e-4 < np.abs(z[1] - z[0]).max()


def test_the_full_vaes_latents_are_normalised_as_the_generator_has_them(encoders_folder: Path) -> None:
    import diffusers

    from playhead.world.wan_vae import WAN_MEAN, WAN_STD

    clip = np.random.default_rng(0).random((1, 64, 96, 3)).astype(np.float32)
    vae = diffusers.AutoencoderKLWan.from_pretrained(encoders_folder / "vae")
    with torch.inference_mode():
        raw = vae.encode(torch.from_numpy(clip * 2 - 1).permute(3, 0, 1, 2)[None]).latent_dist.mode()[0, :, 0]
    found = Encoders(vae=str(encoders_folder)).latents(frame_encoder("sgf"), clip)[0]
    scale = np.array(WAN_STD)[:, None, None], np.array(WAN_MEAN)[:, None, None]
    assert np.allclose(found * scale[0] + scale[1], raw, atol=1e-4)


def test_a_vaes_file_under_its_original_names_encodes_as_diffusers_does(tmp_path: Path) -> None:
    """The same weights by both: in a folder under the names of diffusers, in a file under those of Wan."""
    import diffusers
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    with checkpoint.without_memory():
        vae = WanVAE(4)
    checkpoint.fill_randomly(vae, 3, torch.device("cpu"), torch.float32)
    torch.save(vae.state_dict(), tmp_path / "Wan2.1_VAE.pth")
    theirs = diffusers.AutoencoderKLWan(base_dim=4)
    theirs.load_state_dict(convert_wan_vae_to_diffusers(dict(vae.state_dict())))
    theirs.save_pretrained(tmp_path / "folder" / "vae")
    clip = np.random.default_rng(0).random((9, 64, 96, 3)).astype(np.float32)
    by_file, by_folder = (
        Encoders(vae=str(tmp_path / name)).latents(frame_encoder("sgf"), clip)
        for name in ("Wan2.1_VAE.pth", "folder")
    )
    assert by_file.shape == (3, 16, 8, 12)
    assert np.allclose(by_file, by_folder, atol=1e-4)


def test_a_file_that_is_no_vae_is_named(tmp_path: Path) -> None:
    torch.save({"head": torch.zeros(3)}, tmp_path / "head.pth")
    clip = np.zeros((1, 64, 96, 3), np.float32)
    with pytest.raises(WorldError, match=r"head\.pth is no Wan VAE"):
        Encoders(vae=str(tmp_path / "head.pth")).latents(frame_encoder("sgf"), clip)


def test_encoders_of_another_size_are_refused_before_anything_is_made(encoders: Encoders) -> None:
    import msgspec

    world = frame_encoder("self-forcing")
    generator = msgspec.structs.replace(world.config.generator, text_dim=48)
    world.config = msgspec.structs.replace(world.config, generator=generator)
    with pytest.raises(WorldError, match="rows of 48"):
        make_context(world, ("a",), None, encoders)


def test_an_encoder_that_cannot_be_had_is_named_in_a_sentence(tmp_path: Path) -> None:
    for make in (
        lambda e: e.prompts(("a",), 8),
        lambda e: e.features(np.zeros((8, 8, 3), np.uint8)),
        lambda e: e.latents(frame_encoder("sgf"), np.zeros((1, 64, 96, 3), np.float32)),
    ):
        with pytest.raises(SceneError, match="cannot be had") as problem:
            make(Encoders(*[str(tmp_path)] * 3))
        assert str(tmp_path) in str(problem.value) and "\n" not in str(problem.value)
