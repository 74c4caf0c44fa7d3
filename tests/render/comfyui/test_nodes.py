"""The pack of nodes gives what a script gives, in ComfyUI's forms; tried against a stand-in of its API."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from playhead import PlayheadError, Recording, World, load_scene, rollout
from playhead.engine.recording.schema import chain
from playhead.engine.session import Session
from playhead.render.export.sheet import write_png
from playhead.scenes.settle import settle_picture
from playhead.world.wan_vae import WAN_MEAN, WAN_STD
from tests.command_line import run
from tests.conftest import make_tiny_world
from tests.engine.agents.conftest import make_kind
from tests.render.comfyui.stand_in import ComfyUI, Interrupted

PACK = Path(__file__).parents[3] / "examples" / "comfyui" / "playhead_nodes"
SCRIPT = "w*5 w+right*3 .*2"


@pytest.fixture
def comfy(monkeypatch) -> ComfyUI:
    return ComfyUI(PACK, monkeypatch)


def frames_of(images: torch.Tensor) -> np.ndarray:
    """The frames of an IMAGE batch."""
    return torch.round(images * 255).to(torch.uint8).numpy()


def test_a_script_played_by_nodes_has_the_hashes_that_the_command_records(
    comfy, tiny_world_folder, tiny_scene, tmp_path
):
    done = run(
        "rollout", "--world", tiny_world_folder, "--scene", tiny_scene, "--actions", SCRIPT, "--seed", 3,
        "--device", "cpu", "--out", tmp_path / "walk.npz", "--record", tmp_path / "walk.playhead",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (world,) = comfy.run("PlayheadLoadWorld", name=str(tiny_world_folder), device="cpu")
    (scene,) = comfy.run("PlayheadScene", world=world, name=str(tiny_scene))
    images, rate = comfy.run("PlayheadPlayScript", world=world, scene=scene, script=SCRIPT, seed=3)
    kept = Recording.read(tmp_path / "walk.playhead").tree
    before = kept.branch(1).start
    for frame, tick in zip(frames_of(images), kept.path(1), strict=True):
        before = chain(before, frame[None])
        assert before == tick.hash
    assert rate == 17.5 and comfy.ticks == [(i, 10) for i in range(1, 11)]
    (again,) = comfy.run(
        "PlayheadRecording", file=str(tmp_path / "walk.playhead"), world=str(tiny_world_folder), device="cpu"
    )
    assert torch.equal(again, images)
    (part,) = comfy.run(
        "PlayheadRecording", file=f"{tmp_path / 'walk.playhead'}@6", first=3, device="cpu",
        world=str(tiny_world_folder),
    )  # fmt: skip
    assert torch.equal(part, images[2:6])


def test_worlds_whose_commit_has_a_thread_of_its_own_play_in_inference_mode(comfy, tiny_scene, tmp_path):
    made = make_tiny_world()
    made.side_by_side = True  # as on a machine of several cores
    scene = load_scene(tiny_scene)
    images, _ = comfy.run("PlayheadPlayScript", world=made, scene=scene, script=SCRIPT, seed=11)
    assert np.array_equal(frames_of(images), rollout(make_tiny_world(), scene, SCRIPT, seed=11))


def test_a_scene_from_an_image_is_that_of_the_command(comfy, tiny_world, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    write_png(tmp_path / "a.png", picture)
    wanted = settle_picture(tiny_world, tmp_path / "a.png", 8, 4, 5)
    image = torch.from_numpy(picture.astype(np.float32) / 255)[None]
    (scene,) = comfy.run("PlayheadSceneFromImage", world=tiny_world, image=image, seed=5)
    assert np.array_equal(scene.context.latents, wanted.latents)
    assert np.array_equal(scene.context.frames, wanted.frames)
    images, _ = comfy.run("PlayheadPlayScript", world=tiny_world, scene=scene, script="w*2")
    assert images.shape == (2, 64, 64, 3)
    with pytest.raises(PlayheadError, match="knows no place"):
        comfy.run("PlayheadSceneFromImage", world=tiny_world, image=image, place="moon")


def test_latents_are_those_that_a_wan_vae_decodes_and_of_other_worlds_refused(
    comfy, tiny_world, tiny_scene, tmp_path
):
    _, folder = make_kind("matrix-game-2", tmp_path)
    world, scene = World.load(tmp_path / "matrix-game-2", "cpu"), load_scene(folder)
    (found,) = comfy.run("PlayheadInteractiveLatents", world=world, scene=scene, script="w*2", seed=1)
    session, latents = Session(world, scene.context, 1, scene), []
    for action in (world.config.action.action({"forward": 1.0}),) * 2:
        session.step(action)
        latents.append(session.latents)
    normal = torch.from_numpy(np.concatenate(latents)).movedim(1, 0)[None]
    shape = (1, 16, 1, 1, 1)
    wanted = normal * torch.tensor(WAN_STD).reshape(shape) + torch.tensor(WAN_MEAN).reshape(shape)
    assert torch.allclose(found["samples"], wanted, atol=1e-6)
    assert found["samples"].shape[3:] == (world.config.frame_height // 8, world.config.frame_width // 8)
    with pytest.raises(PlayheadError, match="a Wan VAE decodes none"):
        comfy.run("PlayheadInteractiveLatents", world=tiny_world, scene=load_scene(tiny_scene))
    with pytest.raises(PlayheadError, match="scenes new --image"):
        comfy.run("PlayheadSceneFromImage", world=world, image=torch.zeros(1, 8, 8, 3))


def test_to_cancel_ends_the_work_after_the_tick_under_way(comfy, tiny_world, tiny_scene):
    comfy.cancel_after = 3
    with pytest.raises(Interrupted):
        comfy.run("PlayheadPlayScript", world=tiny_world, scene=load_scene(tiny_scene), script="w*1000")
    assert len(comfy.ticks) == 3


def test_what_cannot_be_is_said_in_a_sentence(comfy, tiny_world, tiny_scene):
    with pytest.raises(PlayheadError, match="`fly`"):
        comfy.run("PlayheadPlayScript", world=tiny_world, scene=load_scene(tiny_scene), script="fly")
    with pytest.raises(PlayheadError, match="not of tiny"):
        comfy.run("PlayheadScene", world=tiny_world, name="red-circle")
    with pytest.raises(PlayheadError, match="no recording"):
        comfy.run("PlayheadRecording", file="nowhere")


def test_the_pack_is_as_a_pack_has_to_be():
    project = tomllib.loads((PACK / "pyproject.toml").read_text("utf-8"))
    assert "comfyui" not in project["project"]["name"].lower() and "comfy" in project["tool"]
    listed = [line for line in (PACK / "requirements.txt").read_text("utf-8").splitlines() if line[0] != "#"]
    assert listed == project["project"]["dependencies"]
    own = tomllib.loads((PACK.parents[2] / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert set(listed) <= {need.partition(">")[0] for need in own}
