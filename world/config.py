"""A world's configuration: the readable `world.toml` beside its weights."""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from playhead.world.action import ActionSpace
from playhead.world.bounds import Positive, Size
from playhead.world.errors import WorldError
from playhead.world.generator import GeneratorConfig
from playhead.world.kv_cache import FarMemory
from playhead.world.lighttae import LightTAEConfig
from playhead.world.tomlfile import read_toml
from playhead.world.wan_vae import CHANNELS, SPACE_FACTOR, TIME_FACTOR, WIDTH


class LatentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One latent frame `(channels, height, width)`.

    The generator works on `(z - mean) / std`, channel by channel; the autoencoder on z. A recipe, which says
    what is to be trained, may leave both out.
    """

    channels: Size
    height: Size
    width: Size
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class SamplingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How ticks are sampled.

    `steps` are listed timesteps (1000 = pure noise), warped by `shift`. `window` counts the latent frames
    that the cache holds, the block under way and the `sink` included. `context_noise` is the timestep of the
    commit pass. `first_steps`: the steps of a session's first block, where those are others.

    `commit`: what later ticks see of a tick are the keys and values of a `pass` of its own over the clean
    latents, or of its `last` denoise pass, which saves that pass. `previous`: the generator is given the tick
    before's clean latents, beside the noisy ones. `far`: some layers' memory beyond the window.
    """

    latents_per_tick: Size
    steps: tuple[float, ...]
    shift: Positive
    window: Size
    sink: Size = 0
    context_noise: float = 0.0
    first_steps: tuple[float, ...] = ()
    positions: Literal["endless", "absolute"] = "endless"
    commit: Literal["pass", "last"] = "pass"
    previous: bool = False
    far: FarMemory | None = None

    @property
    def reach(self) -> int:
        """How many frames back the oldest is that a tick may see, the block under way included."""
        return self.window + (self.far.frames * self.far.every if self.far is not None else 0)

    def steps_for(self, count: int) -> tuple[float, ...]:
        """The step list of length `count`: the world's own, or evenly spaced steps."""
        if len(self.steps) == count:
            return self.steps
        return tuple(1000 * (1 - i / count) for i in range(count))


OWN_DECODER = "lighttae"
"""What the decoder of a world's own autoencoder is called, beside the names of its further ones."""
DECODER_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
"""What a further decoder may be called."""


class DecoderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A further decoder of a world: the weights of a Wan VAE (`world.wan_vae`), and its width."""

    weights: str
    width: Annotated[int, msgspec.Meta(ge=1, le=4096)] = WIDTH


class WorldConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything about a world that is not a weight.

    A weights file named `random:SEED` stands for random weights. `commit_weights`: those of the commit pass,
    where it has its own. `expert_weights`: those of the denoise steps before the last, one file each, where
    steps have experts of their own (the last has `generator_weights`).
    `family`: worlds of one family share their scenes. `prompt_switch`: what becomes of
    the past when the prompt changes: it is committed again under the new one, or flushed down to the sink.
    `places`: what the generator's labels stand for, in their order; a session of none of them has no label.
    `rest_after`: ticks with nothing held, after which the past stays as it is (`world.rest`); 0: never.
    `decoders`: by name, those that may show what is dreamed in place of its autoencoder's, whose encoder
    makes scenes all the same.
    """

    name: str
    title: str
    licence: str
    frame_height: Size
    frame_width: Size
    ticks_per_second: Positive
    latent: LatentConfig
    generator: GeneratorConfig
    autoencoder: LightTAEConfig
    sampling: SamplingConfig
    action: ActionSpace
    generator_weights: str = "generator.safetensors"
    autoencoder_weights: str = "autoencoder.safetensors"
    inverse_weights: str = ""
    commit_weights: str = ""
    expert_weights: tuple[str, ...] = ()
    family: str = ""
    places: tuple[str, ...] = ()
    prompt_switch: Literal["recache", "flush"] = "recache"
    rest_after: Size = 0
    decoders: dict[str, DecoderConfig] = {}

    @property
    def generator_files(self) -> tuple[str, ...]:
        """The weights of its generators: the one of the last denoise step, the commit's, the experts'."""
        files = self.generator_weights, self.commit_weights, *self.expert_weights
        return tuple(file for file in files if file)

    @property
    def weight_files(self) -> tuple[str, ...]:
        """All weights that play needs, each a file beside the world.toml or `random:SEED`."""
        return (*self.generator_files, self.autoencoder_weights)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.latent.channels, self.latent.height, self.latent.width

    @property
    def frames_per_tick(self) -> int:
        """Frames of every tick after the first."""
        return self.sampling.latents_per_tick * self.autoencoder.time_factor

    @property
    def looks_at_picture(self) -> bool:
        """Whether its generator is given condition latents of a scene's picture."""
        return self.generator.condition_channels > 0 and not self.sampling.previous

    def further_decoder(self, name: str) -> DecoderConfig | None:
        """The decoder of a name; None for the autoencoder's own. Raises WorldError where there is none."""
        if name != OWN_DECODER and name not in self.decoders:
            raise WorldError(
                f"the world `{self.name}` has no decoder `{name}`; it has "
                f"{', '.join([OWN_DECODER, *self.decoders])}, and `worlds decoder` adds one to a public world"
            )
        return self.decoders.get(name)

    def label(self, place: str) -> list[float]:
        """A place's label: one-hot, or all 0 where the generator has not learned that place."""
        return [float(name == place) for name in self.places]

    def check(self) -> None:
        """Raises ValueError where two settings contradict each other."""
        self.generator.check()
        latent, sampling = self.latent, self.sampling
        factor = self.autoencoder.space_factor
        size = (latent.height * factor, latent.width * factor)
        if size != (self.frame_height, self.frame_width):
            raise ValueError(
                f"a latent of {latent.height} x {latent.width} decodes to {size[0]} x {size[1]} pixels, "
                f"not to `frame_height` x `frame_width` {self.frame_height} x {self.frame_width}"
            )
        for name in ("mean", "std"):
            if len(getattr(latent, name)) != latent.channels:
                raise ValueError(f"`latent.{name}` needs {latent.channels} values, one a channel")
        if min(latent.std) <= 0:
            raise ValueError("`latent.std` has a value that is not above 0")
        if self.autoencoder.latent_channels != latent.channels:
            raise ValueError("`autoencoder.latent_channels` differs from `latent.channels`")
        if self.generator.inputs != self.action.inputs:
            raise ValueError(
                f"`generator` takes {self.generator.inputs} numbers an action, `action` gives "
                f"{self.action.inputs} (`buttons` that are no commands, and `axes`)"
            )
        if self.generator.labels != len(self.places):
            raise ValueError(f"`generator.labels` is {self.generator.labels}, of {len(self.places)} `places`")
        if self.generator.out_channels != latent.channels:
            raise ValueError("`generator.out_channels` differs from `latent.channels`")
        if not sampling.steps or not all(0 < s <= 1000 for s in (*sampling.steps, *sampling.first_steps)):
            raise ValueError("`sampling.steps` needs at least one step, each above 0 and at most 1000")
        if len(self.expert_weights) not in (0, len(sampling.steps) - 1):
            raise ValueError(
                f"`expert_weights` has {len(self.expert_weights)} files, one for each of the "
                f"{len(sampling.steps) - 1} `sampling.steps` before the last are wanted"
            )
        self._check_memory()
        self._check_decoders()
        self._check_files()
        for steps in (sampling.steps, sampling.first_steps):
            if list(steps) != sorted(steps, reverse=True):
                raise ValueError("`sampling.steps` has to fall from step to step")
        if sampling.latents_per_tick < 1 or self.ticks_per_second <= 0:
            raise ValueError("`sampling.latents_per_tick` and `ticks_per_second` have to be above 0")
        if self.rest_after < 0 or (self.rest_after and not self.action.inputs):
            raise ValueError("`rest_after` is 0, or a number of ticks where the world has something to hold")
        if not 0 <= sampling.sink <= sampling.window - sampling.latents_per_tick - 1:
            raise ValueError(
                f"`sampling.window` {sampling.window} has no room for a sink of {sampling.sink}, a block "
                f"of {sampling.latents_per_tick} and one frame of the past"
            )

    def _check_files(self) -> None:
        """Weights lie beside the world.toml, or are drawn from a seed."""
        further = (decoder.weights for decoder in self.decoders.values())
        for file in (*self.weight_files, self.inverse_weights, *further):
            scheme, colon, seed = file.partition(":")
            if scheme == "random" and colon:
                if not (seed.isascii() and seed.isdecimal() and len(seed) <= 20 and int(seed) < 2**64):
                    raise ValueError(f"`{file[:40]}` names no seed from 0 to 2^64 - 1")
            elif file and (Path(file).name != file or "\\" in file):
                raise ValueError(f"the weights `{file}` have to be a file beside it")

    def _check_decoders(self) -> None:
        own = self.autoencoder
        sizes = own.latent_channels, own.time_factor, own.space_factor
        if self.decoders and sizes != (CHANNELS, TIME_FACTOR, SPACE_FACTOR):
            raise ValueError(
                f"`decoders` are Wan VAEs, of {CHANNELS} channels, {TIME_FACTOR} frames a latent and "
                f"{SPACE_FACTOR} pixels a position; its autoencoder has {', '.join(map(str, sizes))}"
            )
        for name in self.decoders:
            if name == OWN_DECODER or not DECODER_NAME.fullmatch(name):
                raise ValueError(
                    f"a decoder cannot be called `{name[:40]}`: small letters, digits, hyphens and dots, and "
                    f"not {OWN_DECODER}, which is its own"
                )

    def _check_memory(self) -> None:
        g, sampling, far = self.generator, self.sampling, self.sampling.far
        if sampling.previous and g.condition_channels != g.out_channels:
            raise ValueError(
                f"with `sampling.previous` the generator is given {g.out_channels} channels more: "
                f"`generator.in_channels` has to be {2 * g.out_channels}, not {g.in_channels}"
            )
        if sampling.previous and sampling.latents_per_tick != 1:
            raise ValueError("`sampling.previous` is for worlds of one latent a tick")
        if g.predicts == "change" and not sampling.previous:
            raise ValueError('`generator.predicts = "change"` needs `sampling.previous`')
        besides = self.commit_weights or sampling.first_steps or g.text_dim or g.action
        if sampling.commit == "last" and besides:
            raise ValueError(
                '`sampling.commit = "last"` goes with no `commit_weights`, `first_steps`, text or action '
                "modules"
            )
        if far is None:
            return
        if sampling.sink or g.text_dim or g.action:
            raise ValueError("`sampling.far` goes with no sink, text or action modules")
        if min(far.frames, far.every) < 1 or not set(far.layers) <= set(range(g.layers)) or not far.layers:
            raise ValueError(
                f"`sampling.far` needs `frames` and `every` above 0, and `layers` from 0 to {g.layers - 1}"
            )


def read_config(path: Path) -> WorldConfig:
    """Reads a `world.toml`. Raises WorldError naming the file, the field and the mend."""
    missing = "a world folder needs a world.toml"
    return read_toml(path, WorldConfig, "world configuration", missing, WorldError)


def load_config(path: Path) -> WorldConfig:
    """Reads a `world.toml` and checks that its settings agree, which a recipe's need not yet."""
    config = read_config(path)
    try:
        config.check()
    except ValueError as error:
        raise WorldError(f"{path} contradicts itself: {error}; correct it there") from None
    return config
