"""The nodes, on ComfyUI's V3 API. Each is a schema and one call of a function of Playhead's."""

import logging
from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import ComfyExtension, io

from playhead import World
from playhead.render import image_batches

WorldType = io.Custom("PLAYHEAD_WORLD")
SceneType = io.Custom("PLAYHEAD_SCENE")
CATEGORY = "Playhead"
MAX_SEED = 2**64 - 1
SCRIPT = "What is held: `w*20 w+right*10 space` is w for twenty ticks, w and right for ten, space for one."


def _progress() -> Callable[[int, int], None]:
    """Moves ComfyUI's bar tick by tick, and ends the work where somebody has cancelled it."""
    bar: list[comfy.utils.ProgressBar] = []

    def tell(done: int, of: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar[:] = bar or [comfy.utils.ProgressBar(of)]
        bar[0].update_absolute(done, of)

    return tell


def _outside_inference_mode() -> torch.inference_mode:
    """ComfyUI runs nodes in inference mode; what a world keeps is written by threads that are not in it."""
    return torch.inference_mode(False)


class LoadWorld(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlayheadLoadWorld",
            display_name="Load World",
            category=CATEGORY,
            description="Loads a neural world: a shipped or added one by name, or a folder.",
            inputs=[
                io.String.Input("name", default="freedoom"),
                io.Combo.Input("device", options=["auto", "cpu", "cuda"], default="auto"),
            ],
            outputs=[WorldType.Output(display_name="world")],
        )

    @classmethod
    def execute(cls, name: str, device: str) -> io.NodeOutput:
        with _outside_inference_mode():
            return io.NodeOutput(World.load(name, device))


class LoadScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlayheadScene",
            display_name="Scene",
            category=CATEGORY,
            description="Where a world starts: a scene by name, or its folder.",
            inputs=[WorldType.Input("world"), io.String.Input("name", default="red-circle")],
            outputs=[SceneType.Output(display_name="scene")],
        )

    @classmethod
    def execute(cls, world: World, name: str) -> io.NodeOutput:
        with _outside_inference_mode():
            return io.NodeOutput(image_batches.scene_of_world(world, name))


class SceneFromImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlayheadSceneFromImage",
            display_name="Scene from Image",
            category=CATEGORY,
            description="A scene that starts from the first image, for worlds without prompts.",
            inputs=[
                WorldType.Input("world"),
                io.Image.Input("image"),
                io.Int.Input("seed", default=0, min=0, max=MAX_SEED),
                io.Int.Input(
                    "settle", default=4, min=0, max=1000, tooltip="Ticks dreamed after the picture."
                ),
                io.String.Input("place", default="", tooltip="Which of the world's places it is taken for."),
            ],
            outputs=[SceneType.Output(display_name="scene")],
        )

    @classmethod
    def execute(cls, world: World, image: torch.Tensor, seed: int, settle: int, place: str) -> io.NodeOutput:
        with _outside_inference_mode():
            pixels = image[0, :, :, :3].cpu().float().numpy()
            return io.NodeOutput(image_batches.scene_of_image(world, pixels, seed, settle, place))


def _script_inputs() -> list:
    return [
        WorldType.Input("world"),
        SceneType.Input("scene"),
        io.String.Input("script", multiline=True, default="w*20 w+right*10", tooltip=SCRIPT),
        io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True),
        io.Int.Input(
            "steps", default=0, min=0, max=1000, tooltip="Denoise steps a tick; 0: the world's own."
        ),
    ]


class PlayScript(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlayheadPlayScript",
            display_name="Play Script",
            category=CATEGORY,
            description="Plays a script from a scene's start; worlds have no sound.",
            inputs=_script_inputs(),
            outputs=[io.Image.Output(display_name="images"), io.Float.Output(display_name="frames a second")],
        )

    @classmethod
    def execute(cls, world: World, scene: object, script: str, seed: int, steps: int) -> io.NodeOutput:
        with _outside_inference_mode():
            images = image_batches.script_images(world, scene, script, seed, steps or None, _progress())
        rate = world.config.ticks_per_second * world.config.frames_per_tick
        return io.NodeOutput(torch.from_numpy(images), rate)


class InteractiveLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlayheadInteractiveLatents",
            display_name="Interactive Latents",
            category=CATEGORY,
            description="A script's latents, for a Wan 2.1 VAE to decode; of worlds that have its latents.",
            inputs=_script_inputs(),
            outputs=[io.Latent.Output(display_name="latents")],
        )

    @classmethod
    def execute(cls, world: World, scene: object, script: str, seed: int, steps: int) -> io.NodeOutput:
        with _outside_inference_mode():
            latents = image_batches.script_latents(world, scene, script, seed, steps or None, _progress())
        return io.NodeOutput({"samples": torch.from_numpy(latents)})


class RecordingImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PlayheadRecording",
            display_name="Recording",
            category=CATEGORY,
            description="Dreams a recording again, in the world that it was played in.",
            inputs=[
                io.String.Input(
                    "file", default="", tooltip="A .playhead file, or its name; FILE@MOMENT ends there."
                ),
                io.Int.Input("branch", default=0, min=0, max=2**31 - 1, tooltip="0: the newest."),
                io.Int.Input("first", default=1, min=1, max=2**31 - 1),
                io.Int.Input("last", default=0, min=0, max=2**31 - 1, tooltip="0: to the end."),
                io.String.Input("world", default="", tooltip="Its folder, where it is not a known one."),
                io.Combo.Input("device", options=["auto", "cpu", "cuda"], default="auto"),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, file: str, branch: int, first: int, last: int, world: str, device: str) -> io.NodeOutput:
        with _outside_inference_mode():
            images = image_batches.recording_images(
                file, branch or None, first, last or None, world or None, device, _progress(),
                logging.getLogger("playhead").warning,
            )  # fmt: skip
        return io.NodeOutput(torch.from_numpy(images))


class PlayheadExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadWorld, LoadScene, SceneFromImage, PlayScript, InteractiveLatents, RecordingImages]


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls to find the nodes."""
    return PlayheadExtension()
