"""The catalogue of public worlds: causal Wan 2.1 checkpoints, and how each of them is played.

Self-Forcing, Causal-Forcing, Self Gradient Forcing, LongLive, Matrix-Game 2 and ForgeWM are weights and
settings of the one generator. A file cannot tell its settings (steps, window, latents a tick): they are
listed here.
"""

from dataclasses import dataclass

import msgspec

from playhead.world.action import RE_ANCHOR, ActionSpace, prompt_name
from playhead.world.action_module import ActionModuleConfig
from playhead.world.config import LatentConfig, SamplingConfig, WorldConfig
from playhead.world.generator import GeneratorConfig
from playhead.world.lighttae import LightTAEConfig
from playhead.world.wan_vae import WAN_MEAN, WAN_STD

TEXT, IMAGE = "wan-text", "matrix-game-2"
"""The families: worlds of one family share their scenes."""
PROMPTS = 9
"""Prompts that a scene may have, and keys that switch to them."""


@dataclass(frozen=True)
class HubFile:
    """A file on the hub. `size`: bytes, about."""

    repo: str
    path: str
    size: float

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return self.path.rpartition("/")[2]

    @property
    def url(self) -> str:
        """Where a browser downloads it."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.path}"

    def __str__(self) -> str:
        return f"https://huggingface.co/{self.repo}/blob/main/{self.path}"


LIGHTTAE = HubFile("lightx2v/Autoencoders", "lighttaew2_1.pth", 23e6)
AUTOENCODERS = {"lighttaew2_1": "raw", "taew2_1": "normalised"}
"""Which latents each public tiny autoencoder takes: `z * std + mean`, or what the generator gives. The files
have the same keys and shapes, so their names have to tell."""


DECODERS = {
    "lightvae": HubFile("lightx2v/Autoencoders", "lightvaew2_1.pth", 32e6),
    "wan": HubFile("Wan-AI/Wan2.1-T2V-1.3B", "Wan2.1_VAE.pth", 508e6),
}
"""Wan VAEs that any catalogue world may have as further decoders: of a quarter of the width, and the full."""


@dataclass(frozen=True)
class PublicWorld:
    """An entry: what it is called, where its weights are, and its configuration.

    `padding`: how many inputs its file has for keys that were never pressed in training, beyond those that it
    knows. They are left out when it is added: of what is always zero, nothing is left.
    """

    file: HubFile
    config: WorldConfig
    lora: HubFile | None = None
    padding: int = 0

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def memory(self) -> float:
        """Bytes of device memory to play it in bfloat16: weights, caches, and a working reserve, about."""
        return needed_memory(self.config)


def needed_memory(config: WorldConfig) -> float:
    """Bytes for weights, KV cache and activations in bfloat16, about."""
    from playhead.world.checkpoint import without_memory
    from playhead.world.generator import Generator

    g, latent = config.generator, config.latent
    with without_memory():
        weights = sum(p.numel() for p in Generator(g).parameters()) * (2 if config.commit_weights else 1)
    tokens = latent.height * latent.width // g.patch**2
    cache = 2 * g.layers * g.dim * tokens * config.sampling.window
    context = 2 * g.layers * g.dim * (g.text_length if g.text_dim else 257 if g.image_dim else 0)
    actions = 0
    if g.action:
        per_frame = tokens * g.action.mouse_dim if g.action.mouse else 0
        actions = 2 * len(g.action.blocks) * per_frame * config.sampling.window
    work = 24 * config.sampling.latents_per_tick * tokens * max(g.ffn_dim, 4 * g.dim)
    return 2 * (weights + cache + context + actions) + work + 1e9


def with_latents(config: WorldConfig, latents: str) -> WorldConfig:
    """The configuration for an autoencoder that takes `raw` or `normalised` latents."""
    mean, std = (WAN_MEAN, WAN_STD) if latents == "raw" else ((0.0,) * 16, (1.0,) * 16)
    return msgspec.structs.replace(config, latent=msgspec.structs.replace(config.latent, mean=mean, std=std))


WAN = GeneratorConfig(
    dim=1536, heads=12, layers=30, ffn_dim=8960, in_channels=16, out_channels=16, text_dim=4096
)
COMMANDS = (*(prompt_name(number) for number in range(PROMPTS)), RE_ANCHOR)


def _text(name: str, title: str, sampling: SamplingConfig, commit_weights: str = "") -> WorldConfig:
    """A text-to-video world at 480 x 832 and 16 frames a second."""
    return WorldConfig(
        name=name,
        title=title,
        licence="weights Apache-2.0",
        frame_height=480,
        frame_width=832,
        ticks_per_second=16 / 4 / sampling.latents_per_tick,
        latent=LatentConfig(16, 60, 104, WAN_MEAN, WAN_STD),
        generator=WAN,
        autoencoder=LightTAEConfig(),
        sampling=sampling,
        action=ActionSpace(COMMANDS, commands=COMMANDS),
        family=TEXT,
        commit_weights=commit_weights,
    )


def _matrix(
    name: str,
    title: str,
    steps: tuple[float, ...],
    window: int,
    mouse: int,
    space: ActionSpace,
    licence: str = "weights MIT",
    rate: float = 25.0,
    first_steps: tuple[float, ...] = (),
) -> WorldConfig:
    """A world of Matrix-Game 2's kind at 352 x 640 and `rate` frames a second."""
    keyboard = len(space.seen)
    action = ActionModuleConfig(blocks=tuple(range(15)), keyboard=keyboard, mouse=mouse)
    generator = msgspec.structs.replace(WAN, in_channels=36, text_dim=0, image_dim=1280, action=action)
    return WorldConfig(
        name=name,
        title=title,
        licence=licence,
        frame_height=352,
        frame_width=640,
        ticks_per_second=rate / 12,
        latent=LatentConfig(16, 44, 80, WAN_MEAN, WAN_STD),
        generator=generator,
        autoencoder=LightTAEConfig(),
        sampling=SamplingConfig(3, steps, 5.0, window, first_steps=first_steps),
        action=space,
        family=IMAGE,
    )


def _forge(count: int, steps: tuple[float, ...]) -> PublicWorld:
    """A ForgeWM student of so many steps (Li et al. 2026, arXiv 2608.14022).

    What follows the picture is made in four steps by all of them. They were trained on 12 frames a second.
    """
    config = _matrix(
        f"forgewm-{count}",
        f"ForgeWM: Matrix-Game 2 trained anew on Minecraft, {count} step{'s' if count > 1 else ''} a tick",
        steps,
        6,
        2,
        UNIVERSAL,
        "weights Apache-2.0",
        12.0,
        FOUR if count < len(FOUR) else (),
    )
    folder = f"{count}step" if count < len(FOUR) else "stage3"
    return PublicWorld(HubFile("ForgeWM/ForgeWM", f"{folder}/model.pt", 6.5e9), config, padding=2)


FOUR = (1000.0, 750.0, 500.0, 250.0)
THREE = (1000.0, 666.0, 333.0)
CHUNKS = SamplingConfig(3, FOUR, 5.0, 21)
SINGLE = SamplingConfig(1, FOUR, 5.0, 21)
SINKING = SamplingConfig(1, FOUR, 5.0, 21, sink=4)
LONG = SamplingConfig(3, FOUR, 5.0, 12, sink=3)
TWO = SamplingConfig(1, (1000.0, 500.0), 5.0, 21, first_steps=FOUR)
ONE = SamplingConfig(1, (1000.0,), 5.0, 21, first_steps=FOUR)
MOUSE, MOUSE_SCALE = ("pitch", "yaw"), 0.1
UNIVERSAL = ActionSpace(("forward", "back", "left", "right", RE_ANCHOR), MOUSE, MOUSE_SCALE, (RE_ANCHOR,))
DRIVE = ActionSpace(("forward", "back", RE_ANCHOR), MOUSE, MOUSE_SCALE, (RE_ANCHOR,))
RUN = ActionSpace(
    ("no_move", "jump", "slide", "turn_left", "turn_right", "left_side", "right_side", RE_ANCHOR),
    commands=(RE_ANCHOR,),
    one_hot=True,
)

CAUSAL, PLUS = "zhuhz22/Causal-Forcing", "ZihanSu/Self_Gradient_Forcing_Plus"
GAME = "Skywork/Matrix-Game-2.0"
NVIDIA = "Efficient-Large-Model/LongLive-1.3B"
T2V, GAME_SIZE = 5.7e9, 3.3e9

_ENTRIES = (
    PublicWorld(
        HubFile("gdhe17/Self-Forcing", "checkpoints/self_forcing_dmd.pt", 2 * T2V),
        _text("self-forcing", "Self-Forcing: a prompt becomes a video, three latents at a time", CHUNKS),
    ),
    PublicWorld(
        HubFile(CAUSAL, "framewise/causal_forcing.pt", T2V),
        _text("causal-forcing", "Causal-Forcing: a prompt becomes a video, a latent at a time", SINGLE),
    ),
    PublicWorld(
        HubFile(CAUSAL, "causal-forcing++/framewise-2step.pt", T2V),
        _text("causal-forcing-2step", "Causal-Forcing++ in two steps", TWO),
    ),
    PublicWorld(
        HubFile(CAUSAL, "causal-forcing++/framewise-1step.pt", T2V),
        _text("causal-forcing-1step", "Causal-Forcing++ in one step", ONE),
    ),
    PublicWorld(
        HubFile("JunhaoZhuang/Self_Gradient_Forcing", "framewise/ar/model.pt", T2V),
        _text("sgf", "Self Gradient Forcing, a latent at a time, with a sink", SINKING),
    ),
    PublicWorld(
        HubFile(PLUS, "framewise/model.pt", 2 * T2V),
        _text(
            "sgf-plus",
            "Self Gradient Forcing Plus: the commit has weights of its own",
            SINKING,
            commit_weights="commit.safetensors",
        ),
    ),
    PublicWorld(
        HubFile(NVIDIA, "models/longlive_base.pt", T2V),
        _text("longlive", "LongLive: long videos whose prompt changes while they play", LONG),
        lora=HubFile(NVIDIA, "models/lora.pt", 1.4e9),
    ),
    PublicWorld(
        HubFile(GAME, "base_distilled_model/base_distill.safetensors", GAME_SIZE),
        _matrix("matrix-game-2", "Matrix-Game 2: walk and look about in a picture", THREE, 6, 2, UNIVERSAL),
    ),
    PublicWorld(
        HubFile(GAME, "gta_distilled_model/gta_keyboard2dim.safetensors", GAME_SIZE),
        _matrix("matrix-game-2-gta", "Matrix-Game 2: drive a car", THREE, 4, 2, DRIVE),
    ),
    PublicWorld(
        HubFile(GAME, "templerun_distilled_model/templerun_7dim_onlykey.safetensors", GAME_SIZE),
        _matrix("matrix-game-2-templerun", "Matrix-Game 2: run through a temple", FOUR, 6, 0, RUN),
    ),
    _forge(1, FOUR[:1]),
    _forge(2, FOUR[::3]),
    _forge(4, FOUR),
)

PUBLIC = {entry.name: entry for entry in _ENTRIES}
"""Every entry, by name."""


def tiny(config: WorldConfig) -> WorldConfig:
    """The same world with a generator of a few thousandths of the size, at 64 x 96 pixels, for any CPU."""
    g, replace_in = config.generator, msgspec.structs.replace
    action = g.action
    if action:
        action = replace_in(action, blocks=(0, 1), heads=2, keyboard_dim=32, mouse_dim=32, embedding=16)
    generator = replace_in(
        g, dim=64, heads=2, layers=3, ffn_dim=128, time_features=32, action=action, text_length=16
    )
    generator = replace_in(generator, text_dim=32 if g.text_dim else 0, image_dim=40 if g.image_dim else 0)
    autoencoder = LightTAEConfig(encoder_widths=(8, 8, 8, 8), decoder_widths=(16, 8, 8, 8))
    return replace_in(
        config,
        frame_height=64,
        frame_width=96,
        latent=replace_in(config.latent, height=8, width=12),
        generator=generator,
        autoencoder=autoencoder,
    )
