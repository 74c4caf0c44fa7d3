"""What node programs ask of worlds: scenes of pictures, scripts and recordings as batches of images, latents.

A batch is float32 `(B, H, W, 3)` in [0, 1]; `round(255 * batch)` are the frames, bit for bit. `progress` is
told how many ticks of how many are done; what it raises ends the work.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from playhead.controls.keymap import find_keymap
from playhead.controls.script import load_actions
from playhead.engine.recording.finding import find_recording
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import load_world, replay, telling
from playhead.engine.rollout import rolling
from playhead.engine.session import Session
from playhead.render.export.sheet import write_png
from playhead.render.script_rollout import rollout
from playhead.scenes.scene import Scene, SceneError, belongs, check_seed, load_scene
from playhead.scenes.settle import settle_picture
from playhead.world.errors import PlayheadError, WorldError
from playhead.world.wan_vae import CHANNELS, SPACE_FACTOR, TIME_FACTOR, WAN_MEAN, WAN_STD
from playhead.world.world import World

Progress = Callable[[int, int], None]
CONTEXT = 8
"""Frames of a context that is made of a picture, as `scenes new --image` makes it."""


def scene_of_world(world: World, name: str) -> Scene:
    """A scene by name or folder. Raises SceneError where it is missing, damaged, or of another world."""
    scene = load_scene(name)
    if not belongs(scene.world, world.config):
        raise SceneError(f"the scene `{scene.name}` is one of {scene.world}, not of {world.config.name}")
    return scene


def scene_of_image(world: World, image: np.ndarray, seed: int = 0, settle: int = 4, place: str = "") -> Scene:
    """A scene that starts from a picture, float `(H, W, 3)` in [0, 1]: that of `scenes new --image`.

    `settle`: ticks dreamed with nothing held after it; `place`: which of the world's places it is taken for.
    Raises SceneError for another array, and for a world whose scenes need encoders or prompts.
    """
    config = world.config
    if config.generator.text_dim or config.generator.image_dim or config.looks_at_picture:
        raise SceneError(
            f"scenes of `{config.name}` are made by encoders; make one by `scenes new --image` and name it"
        )
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or not np.isfinite(image).all():
        raise SceneError(f"a picture is (H, W, 3) with values from 0 to 1, not {image.shape}")
    check_seed(seed, "seed")
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        path = Path(folder) / "image.png"
        write_png(path, np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
        context = settle_picture(world, path, CONTEXT, settle, seed, place)
    return Scene("image", "From an image", "", config.name, seed, context)


def script_images(
    world: World,
    scene: Scene,
    script: str,
    seed: int | None = None,
    steps: int | None = None,
    progress: Progress = lambda done, of: None,
) -> np.ndarray:
    """A script's frames, those of `playhead.rollout`, as a batch of images."""
    return _images(rollout(world, scene, script, seed, steps, progress))


def script_latents(
    world: World,
    scene: Scene,
    script: str,
    seed: int | None = None,
    steps: int | None = None,
    progress: Progress = lambda done, of: None,
) -> np.ndarray:
    """A script's latents as Wan's own VAE knows them: float32 `(1, 16, T, H/8, W/8)`.

    Raises WorldError for a world that was not made of that VAE's latents.
    """
    config = world.config
    own = config.autoencoder
    sizes = own.latent_channels, own.time_factor, own.space_factor
    if sizes != (CHANNELS, TIME_FACTOR, SPACE_FACTOR):
        raise WorldError(f"the latents of `{config.name}` are its own; a Wan VAE decodes none of them")
    actions = load_actions(script, config.action, find_keymap(config.name, config.family).aliases)
    if not actions:
        raise PlayheadError("a script needs a tick or more, such as w*20")
    check_seed(seed := scene.seed if seed is None else seed, "seed")
    session = Session(world, scene.context, seed, scene)
    session.steps = world.steps if steps is None else steps
    played = []
    for done, _ in enumerate(rolling(session, actions), 1):
        played.append(session.latents)
        progress(done, len(actions))
    normal = np.concatenate(played).transpose(1, 0, 2, 3)  # (16, T, h, w), of mean 0 and deviation 1
    mean, std = (np.asarray(values, np.float32)[:, None, None, None] for values in (WAN_MEAN, WAN_STD))
    latents: np.ndarray = (normal * std + mean)[None]
    return latents


def recording_images(
    file: str,
    branch: int | None = None,
    first: int = 1,
    last: int | None = None,
    world: str | None = None,
    device: str = "auto",
    progress: Progress = lambda done, of: None,
    complain: Callable[[str], None] = lambda sentence: None,
) -> np.ndarray:
    """Ticks `first` to `last` of a recording's branch (None: the newest, to its end), dreamed again.

    `file`: a path, or a name in the recordings folder, with `@MOMENT` to end there. `world`: a name or folder
    in place of the recording's own. `complain` is told in a sentence if it is not what was played. Raises
    RecordingError for a recording, a branch or ticks that there are not.
    """
    path, moment = find_recording(file)
    recording = Recording.read(path)
    point = recording.tree.parse(moment)
    number = point.branch if branch is None else branch
    end = point.tick if moment and branch is None else recording.tree.branch(number).last
    last = end if last is None else last
    recording.tree.check_range(number, max(first, 1), last)
    loaded = load_world(recording, world, device)
    frames = []
    for tick in telling(replay(recording, loaded, number, 0, last), recording, loaded, complain):
        if tick.point.tick >= max(first, 1):
            frames.append(tick.frames)
        if tick.point.tick:
            progress(tick.point.tick, last)
    return _images(np.concatenate(frames))


def _images(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 as images float32 in [0, 1]."""
    images: np.ndarray = frames.astype(np.float32) / np.float32(255)
    return images
