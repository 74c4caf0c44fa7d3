"""Further decoders of a world: what they promise in play, how they are added, and what is refused."""

import json
import pickle
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tomli_w
import torch

from playhead.engine.bridge.server.registry import Registry, session_bytes
from playhead.engine.fingerprint import environment, fingerprint
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.recorder import Recorder
from playhead.engine.recording.replay import verify
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.engine.timeline.opening import continued
from playhead.engine.timeline.timeline import Timeline
from playhead.scenes.build import save_scene
from playhead.scenes.scene import SceneFields
from playhead.world import checkpoint
from playhead.world.action import Action
from playhead.world.adding_decoders import add_decoder
from playhead.world.config import DecoderConfig, load_config
from playhead.world.errors import WorldError
from playhead.world.home import scenes_folder
from playhead.world.lighttae import LightTAE
from playhead.world.public import with_latents
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.size import cache_bytes
from playhead.world.wan_vae import WanVAE
from playhead.world.world import World
from playhead.world.world_folders import find_world
from tests.command_line import refusal, run

CPU = torch.device("cpu")
DECODERS = ("lighttae", "lightvae", "wan")
HELD = [Action(frozenset({name})) for name in ("prompt_2", "prompt_1", "prompt_1")]
"""Of a world that is told by prompts."""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `worlds random` puts worlds."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def save(name: str = "causal-forcing", **changes: object) -> Path:
    """The folder of a small random world, changed."""
    config = msgspec.structs.replace(random_world(name, small=True), **changes)
    save_world_config(config)
    return find_world(config.name)


def load(decoder: str | None = None, name: str = "causal-forcing") -> World:
    return World.load(save(name), "cpu", torch.float32, decoder=decoder)


def begin(world: World) -> Session:
    return Session(world, random_context(world.config), 5)


def play(session: Session, count: int = 3) -> list[np.ndarray]:
    return [session.step(action) for action in HELD[:count]]


def save_vae(path: Path, width: int = 4, seed: int = 9) -> dict[str, torch.Tensor]:
    """Writes a Wan VAE of random weights under its original names, as torch saves it."""
    with checkpoint.without_memory():
        vae = WanVAE(width)
    checkpoint.fill_randomly(vae, seed, CPU, torch.float32)
    torch.save(vae.state_dict(), path)
    return vae.state_dict()


@pytest.mark.parametrize("name", ["causal-forcing", "self-forcing", "matrix-game-2"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_snapshots_forks_and_returns_are_exact(decoder: str, name: str) -> None:
    """In worlds of one latent a tick and of three; the decoder's memory is a part of what is kept."""
    world = load(decoder, name)
    session = begin(world)
    held = HELD if name != "matrix-game-2" else [Action(frozenset({"forward"})), Action(), Action()]
    shown = [session.step(action) for action in held]
    count = world.config.sampling.latents_per_tick
    assert [len(frames) for frames in shown] == [4 * count - 3, 4 * count, 4 * count]
    kept, twin = session.snapshot(), session.fork()
    first = [session.step(action) for action in held]
    assert all(map(np.array_equal, first, [twin.step(action) for action in held]))
    session.restore(kept)
    assert all(map(np.array_equal, first, [session.step(action) for action in held]))
    session.reset(5)
    assert all(map(np.array_equal, shown, [session.step(action) for action in held]))


def test_what_is_dreamed_is_the_same_whichever_decoder_shows_it() -> None:
    sessions = [begin(load(decoder)) for decoder in (None, *DECODERS)]
    shown = [play(session) for session in sessions]
    assert all(np.array_equal(sessions[0].latents, session.latents) for session in sessions[1:])
    assert all(map(np.array_equal, shown[0], shown[1]))  # the world's own, by its name
    last = [frames[-1] for frames in shown[1:]]
    assert not any(np.array_equal(a, b) for a, b in pairwise(last))


@pytest.mark.parametrize("decoder", ["lightvae", "wan"])
def test_a_moment_looked_at_is_what_play_showed_then(decoder: str) -> None:
    """As a picture in the timeline, by a decode of as many ticks as the decoder remembers."""
    world = load(decoder)
    session = begin(world)
    latents = []
    for _ in range(world.decoder_span + 3):
        frames = session.step(HELD[1])
        latents.append(session.latents)
    seen = world.picture(np.concatenate(latents[-world.decoder_span - 1 :]))
    assert np.abs(seen.astype(int) - frames[-1]).max() <= 1
    assert world.decoder_span == 38 and load("wan", "self-forcing").decoder_span == 13


def test_a_wan_vae_is_given_wans_latents_whatever_those_of_the_worlds_own_are() -> None:
    raw = random_world("causal-forcing", small=True)
    shown = []
    for config in (raw, with_latents(raw, "normalised")):
        save_world_config(config)
        shown.append(play(begin(World.load(config.name, "cpu", torch.float32, decoder="wan"))))
    assert all(map(np.array_equal, *shown))


def record(path: Path, world: World) -> Recording:
    """A play of three ticks, a way back to the first, and two others from there."""
    timeline, session = Timeline(Recorder(path, world, "prompts")), begin(world)
    timeline.begin(session)
    for action in HELD:
        timeline.step(session, action)
    timeline.seek(session, Point(1, 1))
    for action in HELD[:2]:
        timeline.step(session, action)
    timeline.close()
    assert not timeline.failure
    return Recording.read(path)


def test_a_recording_names_the_decoder_and_another_is_told_in_a_sentence(tmp_path: Path) -> None:
    world, own = load("wan"), load()
    kept = record(tmp_path / "wan.playhead", world)
    assert verify(kept, world) is None
    named = environment(world)["decoder"]
    found = verify(kept, own)
    assert found is not None and found.causes == [f"the decoder (recorded {named}, here lighttae)"]
    found = verify(record(tmp_path / "own.playhead", own), world)
    assert found is not None and found.causes == [f"the decoder (recorded lighttae, here {named})"]


def test_a_recording_of_before_a_decoder_was_added_is_verified_and_gone_on_with(tmp_path: Path) -> None:
    kept = record(tmp_path / "before.playhead", World.load(save(decoders={}), "cpu", torch.float32))
    world = load()
    assert verify(kept, world) is None
    timeline, session, remark = continued(kept, Point(1, 2), world)
    timeline.step(session, HELD[0])
    timeline.close()
    assert (remark, timeline.failure) == ("", "")


def test_other_decoders_beside_it_change_nothing_of_what_a_world_is() -> None:
    with_them = load()
    without = World.load(save(decoders={}), "cpu", torch.float32)
    assert fingerprint(with_them) == fingerprint(without)
    assert environment(with_them) == environment(without) and "decoder" not in environment(without)
    other = load("wan")
    assert fingerprint(other) == fingerprint(without)
    assert environment(other)["decoder"].startswith("wan ")


def test_a_decoder_of_other_weights_is_another_one() -> None:
    first = environment(load("wan"))["decoder"]
    config = random_world("causal-forcing", small=True)
    save(decoders={**config.decoders, "wan": DecoderConfig("random:77", 8)})
    second = environment(World.load("causal-forcing-tiny", "cpu", torch.float32, decoder="wan"))["decoder"]
    assert first.startswith("wan ") and second.startswith("wan ") and first != second


def test_a_pickled_world_comes_back_with_its_decoder() -> None:
    world = load("lightvae")
    again = pickle.loads(pickle.dumps(world))
    assert again.frame_decoder.name == "lightvae"
    assert all(map(np.array_equal, play(begin(world), 1), play(begin(again), 1)))


def test_one_that_is_not_there_is_named_with_those_that_are(tiny_world_folder: Path) -> None:
    with pytest.raises(
        WorldError, match=r"no decoder `vae`; it has lighttae, lightvae, wan, and `worlds dec"
    ):
        load("vae")
    with pytest.raises(WorldError, match="no decoder `wan`; it has lighttae, and"):
        World.load(tiny_world_folder, "cpu", decoder="wan")


def test_weights_that_are_missing_or_of_another_width_are_named() -> None:
    folder = save(decoders={"wan": DecoderConfig("decoder-wan.safetensors", 8)})
    with pytest.raises(WorldError, match=r"decoder-wan\.safetensors is missing"):
        World.load(folder, "cpu", decoder="wan")
    with checkpoint.without_memory():
        vae = WanVAE(2)
    checkpoint.fill_randomly(vae, 0, CPU, torch.float32)
    checkpoint.save_weights(folder / "decoder-wan.safetensors", vae.state_dict())
    with pytest.raises(WorldError, match=r"has shape .* where the model has"):
        World.load(folder, "cpu", decoder="wan")
    World.load(folder, "cpu")  # which needs none of it


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_file_under_its_original_names_is_added_unchanged(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"lightvaew2_1.{kind}"
    tensors = save_vae(file)
    if kind == "safetensors":
        checkpoint.save_weights(file, tensors, torch.float32)
    folder = save(decoders={})
    before = (folder / "world.toml").read_text("utf-8")
    assert add_decoder(folder, file, "lightvae").width == 4
    after = (folder / "world.toml").read_text("utf-8")
    assert after.startswith(before.rstrip()) and "[decoders.lightvae]" in after
    kept = checkpoint.read_weights(folder / "decoder-lightvae.safetensors")
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[key], tensors[key].bfloat16()) for key in kept)
    world = World.load(folder, "cpu", torch.float32, decoder="lightvae")
    play(begin(world))
    held = world.frame_decoder.network.state_dict()
    assert all(torch.equal(held[key], kept[key].float()) for key in held) and "conv2.weight" in held
    assert sorted(path.name for path in folder.iterdir()) == ["decoder-lightvae.safetensors", "world.toml"]


def test_what_cannot_be_added_is_refused_and_leaves_all_as_it_was(
    tmp_path: Path, tiny_world_folder: Path
) -> None:
    file, folder = tmp_path / "vae.pth", save()
    save_vae(file)
    other, renamed = tmp_path / "tae.pth", tmp_path / "renamed.pth"
    torch.save(LightTAE(random_world("sgf", small=True).autoencoder).state_dict(), other)
    torch.save({"decoder.up_blocks.0.resnets.0.norm1.gamma": torch.ones(4, 1, 1, 1)}, renamed)
    cut = tmp_path / "cut.pth"
    tensors = dict(torch.load(file))
    del tensors["decoder.head.0.gamma"]
    torch.save(tensors, cut)
    before = {path: path.read_bytes() for path in [*folder.iterdir(), *tiny_world_folder.iterdir()]}
    for where, given, name, said in (
        (folder, file, "wan", "has a decoder `wan` already; choose another --name, or add --force"),
        (folder, file, "lighttae", "cannot be called `lighttae`"),
        (folder, file, "../up", "cannot be called `../up`"),
        (folder, other, "mine", "is no Wan VAE"),
        (folder, renamed, "mine", "the names that diffusers gives"),
        (folder, cut, "mine", r"of 194 tensors 1 missing (decoder.head.0.gamma)"),
        (folder, tmp_path / "none.pth", "mine", "none.pth is missing"),
        (tiny_world_folder, file, "mine", "`decoders` are Wan VAEs, of 16 channels"),
    ):
        with pytest.raises(WorldError) as problem:
            add_decoder(where, given, name)
        assert said in str(problem.value) and "\n" not in str(problem.value)
    found = {path: path.read_bytes() for path in [*folder.iterdir(), *tiny_world_folder.iterdir()]}
    assert found == before


def test_one_that_is_there_is_replaced_by_force_alone(tmp_path: Path) -> None:
    file, folder = tmp_path / "vae.pth", save()
    save_vae(file)
    assert add_decoder(folder, file, "wan", force=True).width == 4
    assert load_config(folder / "world.toml").decoders["wan"].weights == "decoder-wan.safetensors"
    assert list(load_config(folder / "world.toml").decoders) == ["lightvae", "wan"]


@pytest.mark.parametrize(
    ("decoders", "said"),
    [
        ({"lighttae": DecoderConfig("random:1", 8)}, "cannot be called `lighttae`"),
        ({"UP": DecoderConfig("random:1", 8)}, "cannot be called `UP`"),
        ({"wan": DecoderConfig("../wan.safetensors", 8)}, "have to be a file beside it"),
        ({"wan": DecoderConfig("random:1", 0)}, "$.decoders[...].width"),
        ({"wan": DecoderConfig("random:1", 10**9)}, "$.decoders[...].width"),
    ],
)
def test_settings_of_decoders_that_cannot_be_are_one_sentence(
    decoders: dict[str, DecoderConfig], said: str, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(random_world("sgf", small=True), decoders=decoders)
    (tmp_path / "world.toml").write_text(tomli_w.dumps(msgspec.to_builtins(config)), "utf-8")
    with pytest.raises(WorldError) as problem:
        load_config(tmp_path / "world.toml")
    assert said in str(problem.value) and "\n" not in str(problem.value)
    assert str(problem.value).endswith("; correct it there")


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_a_session_keeps_for_a_large_decoder_is_known_before(decoder: str) -> None:
    world = load(decoder)
    session = begin(world)
    play(session)
    kept = session.snapshot().state["decoder_memory"]
    size = sum(part.numel() * part.element_size() for part in kept)
    assert world.frame_decoder.carried == (0 if decoder == "lighttae" else size)
    assert session_bytes(world) == cache_bytes(world.config, 4) + world.frame_decoder.carried


def test_a_server_plays_with_the_decoder_that_it_is_given() -> None:
    folder = save()
    fields = SceneFields("a-start", "Noise", "Random features.", folder.name, 5, "context.npz", ("a", "b"))
    save_scene(fields, random_context(load_config(folder / "world.toml")), scenes_folder())
    served = Registry.load([folder.name], [], "cpu", None, "wan")
    world = served.world(folder.name)
    session = served.open(world, served.scene(world, "a-start"), 5)
    wanted = begin(World.load(folder, "cpu", decoder="wan"))
    assert all(map(np.array_equal, play(session), play(wanted)))


def test_the_command_adds_a_file_or_a_known_one_that_was_downloaded(tmp_path: Path, own_home: Path) -> None:
    """What lies in the folder of downloads is not fetched again."""
    folder, file = save(decoders={}), own_home / "downloads" / "lightx2v--Autoencoders" / "lightvaew2_1.pth"
    file.parent.mkdir(parents=True)
    save_vae(file)
    done = run("worlds", "decoder", folder.name, "lightvae", home=own_home)
    assert (done.returncode, done.stderr) == (0, "") and "--decoder lightvae" in done.stdout
    done = run("worlds", "decoder", folder, file, home=own_home)
    assert (done.returncode, done.stderr) == (0, "") and "the decoder lightvaew2-1, of width 4" in done.stdout
    listed = json.loads(run("worlds", "--json", home=own_home).stdout)["here"]
    assert {one["name"]: one["decoders"] for one in listed} == {
        "freedoom": ["lighttae"],
        folder.name: ["lighttae", "lightvae", "lightvaew2-1"],
    }
    refused = refusal("worlds", "decoder", "freedoom", file, folder=tmp_path)
    assert "the world `freedoom` takes no such decoder: `decoders` are Wan VAEs" in refused
