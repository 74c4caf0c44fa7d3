"""Encoders of the real architectures, small enough to be built from random weights in a moment."""

import json
from pathlib import Path

import pytest
import torch

WORDS = ("waves at a rocky coast in the evening", "the same coast in a storm", "a street with lamps & snow")


@pytest.fixture(scope="session")
def encoders_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the hub's repositories: UMT5 of 32 channels, CLIP of 40, a full Wan VAE."""
    import diffusers
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("encoders")
    learnt = Tokenizer(models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    learnt.train_from_iterator(WORDS, trainer)
    vocabulary = [tuple(entry) for entry in json.loads(learnt.to_str())["model"]["vocab"]]
    transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer")
    random_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    text = transformers.UMT5Config(
        vocab_size=len(vocabulary), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    transformers.UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    image = transformers.CLIPVisionConfig(
        hidden_size=40, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=224,
        patch_size=14,
    )  # fmt: skip
    transformers.CLIPVisionModel(image).save_pretrained(folder / "image_encoder")
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    vae.save_pretrained(folder / "vae")
    torch.random.set_rng_state(random_state)
    return folder
