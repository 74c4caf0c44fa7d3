"""The forms, in Gradio: what is chosen, typed and uploaded, and what comes of it."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported

import gradio as gr
from fastapi import FastAPI

from playhead.controls.keymap import find_keymap
from playhead.engine.bridge.server.registry import Registry
from playhead.render.demo.forms import Forms
from playhead.scenes.settle import settles
from playhead.world.errors import PlayheadError
from playhead.world.terminal import printable

AT = "/demo"
"""Where the forms are; the live page is at `/`, as ever."""
FILES = f"{AT}/gradio_api/file="
"""What stands before a ticket where a file is asked for: Gradio's page puts it before what it uploaded."""
FILMS, WAITING = 2, 16
"""Films that are made at a time, and requests that may wait for their turn."""
TELL = 0.25
"""Seconds between two times that somebody is told how far a film is; in between it may be stopped."""
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""Of fonts that are there already: Gradio's own would be fetched from elsewhere."""
CSS = """
#live iframe { border: 0; width: 100%; height: 36rem; display: block; }
#bar progress { width: 100%; }
"""
LIVE = '<iframe src="/{}" title="The world, live" allow="fullscreen; gamepad"></iframe>'
BAR = '<label>{0} of {1} ticks <progress value="{0}" max="{1}"></progress></label>'


def make_gradio_app(registry: Registry, forms: Forms) -> FastAPI:
    """The application that serves the forms, under `AT`. What they do is done by `forms`."""
    blocks = make_blocks(registry, forms)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, blocks, AT, footer_links=[], run_history=False, show_error=False, ssr_mode=False, pwa=False,
        mcp_server=False, enable_monitoring=False, theme=THEME, css=CSS,
    )  # fmt: skip
    return app


def make_blocks(registry: Registry, forms: Forms) -> gr.Blocks:
    blocks = gr.Blocks(title="Playhead", analytics_enabled=False)
    with blocks:
        gr.Markdown("# Playhead\nEvery frame is dreamed from the last ones and from what is held.")
        with gr.Row():
            with gr.Column(scale=2):
                with gr.Tab("Film a script"):
                    _add_film(registry, forms)
                pictured = [name for name, world in registry.worlds.items() if settles(world.config)]
                if pictured:
                    with gr.Tab("Start from a picture"):
                        begin, asked = _add_picture(registry, pictured)
            with gr.Column(scale=3):
                live = gr.HTML(LIVE.format(""), elem_id="live")
        if pictured:

            def started(picture: str | None, world: str, place: str, seed: str) -> str:
                with _in_a_sentence():
                    return LIVE.format(f"#play={forms.start(picture, world, place, seed)}")

            begin.click(started, asked, live, api_name="picture", concurrency_limit=FILMS)
    blocks.queue(max_size=WAITING, api_open=False)
    return blocks


def _add_film(registry: Registry, forms: Forms) -> None:
    """What is filmed, and the film."""
    worlds = [*registry.worlds]
    world = gr.Dropdown(worlds, value=worlds[0], label="World", visible=len(worlds) > 1)
    scene = gr.Dropdown(_scenes(registry, worlds[0]), label="Scene")
    with gr.Row():
        seed = gr.Textbox(label="Seed", placeholder="the scene's", max_lines=1)
        steps = gr.Number(
            registry.world(worlds[0]).steps, label="Denoise steps a tick", precision=0, minimum=1
        )
    script = gr.Textbox("w*20 w+right*10", label="Script", lines=2, info=_how(registry, worlds[0]))
    array = _by_ticket(gr.File(label="or an .npy of actions, in its place", height=140))
    with gr.Row():
        make, stop = gr.Button("Film it", variant="primary"), gr.Button("Stop")
    bar = gr.HTML(elem_id="bar")
    film = _by_ticket(gr.Video(label="Film", interactive=False, autoplay=True))
    said = gr.JSON(label="What was filmed")

    def filmed(
        world: str, scene: str, seed: str, steps: int | None, script: str, array: str | None
    ) -> Iterator[tuple[Any, ...]]:
        told = 0.0
        with (
            _in_a_sentence(),
            contextlib.closing(forms.film(world, scene, seed, steps, script, array)) as work,
        ):
            while True:
                try:
                    done, ticks = next(work)
                except StopIteration as ended:
                    made = ended.value
                    break
                if time.monotonic() > told + TELL:
                    told = time.monotonic()
                    yield BAR.format(done, ticks), None, None
        ticks = made.filmed.ticks
        # A seed as a text: those of JSON go up to 2^64 - 1, and JavaScript's numbers do not.
        facts = {**asdict(made.filmed), "seed": str(made.filmed.seed)}
        yield BAR.format(ticks, ticks), _file(made.ticket, "film.mp4"), facts

    def changed(name: str) -> tuple[Any, ...]:
        scenes, steps = _scenes(registry, name), registry.world(name).steps
        return gr.Dropdown(scenes, value=scenes[0][1]), steps, gr.Textbox(info=_how(registry, name))

    making = make.click(
        filmed, [world, scene, seed, steps, script, array], [bar, film, said], api_name="film",
        concurrency_limit=FILMS,
    )  # fmt: skip
    stop.click(None, cancels=[making])
    world.change(changed, world, [scene, steps, script], api_visibility="private")


def _add_picture(registry: Registry, worlds: list[str]) -> tuple[gr.Button, list[Any]]:
    """What a scene is begun with. Returns the button, and what it goes by."""
    picture = _by_ticket(gr.Image(label="Picture", type="filepath", sources=["upload", "clipboard"]))
    world = gr.Dropdown(worlds, value=worlds[0], label="World", visible=len(worlds) > 1)
    places = _places(registry, worlds[0])
    place = gr.Dropdown(places, value="", label="To be dreamed as", visible=len(places) > 1)
    seed = gr.Textbox(label="Seed", placeholder="0", max_lines=1)
    begin = gr.Button("Play from it", variant="primary")
    gr.Markdown("It begins in the live page, in the place of what is played there.")

    def changed(name: str) -> Any:  # noqa: ANN401 (Gradio's)
        found = _places(registry, name)
        return gr.Dropdown(found, value="", visible=len(found) > 1)

    world.change(changed, world, place, api_visibility="private")
    return begin, [picture, world, place, seed]


def _by_ticket(component: Any) -> Any:  # noqa: ANN401 (any of Gradio's whose value is a file)
    """Has its value be a ticket: without a `data_model` Gradio takes it for no path, and looks at no disk.

    It is this one alone: an update of it, `gr.skip()` too, has Gradio make another in its place. And for a
    class of its own Gradio would write a file beside this one.
    """
    component.data_model = None
    component.preprocess = lambda value: None if value is None else str(value.get("ticket", ""))
    component.postprocess = lambda value: value
    component.example_inputs = component.example_payload = component.example_value = lambda: None
    component.api_info = lambda: {"type": "object", "description": "a file, as it was uploaded"}
    return component


def _file(ticket: str, name: str) -> dict[str, str]:
    """A kept file as Gradio's page wants it. It has no `meta`, by which Gradio would know it for a path."""
    return {"path": ticket, "url": f"{FILES}{ticket}", "orig_name": name}


def _scenes(registry: Registry, world: str) -> list[tuple[str, str]]:
    return [(printable(s.title), s.name) for s in registry.scenes(registry.world(world))]


def _places(registry: Registry, world: str) -> list[tuple[str, str]]:
    return [("whatever it looks like", ""), *((name, name) for name in registry.world(world).config.places)]


def _how(registry: Registry, world: str) -> str:
    """What a script may be made of."""
    config = registry.world(world).config
    keys = find_keymap(config.name, config.family).buttons
    held = [
        f"{(keys.get(button) or (button,))[0].replace(' ', '_')} ({button})"
        for button in config.action.buttons
    ]
    axes = [f"{axis}=0.5" for axis in config.action.axes]
    return "w*20 is w for twenty ticks, w+right both at once. There are " + ", ".join([*held, *axes])


@contextlib.contextmanager
def _in_a_sentence() -> Iterator[None]:
    """What cannot be is said on the page; anything else is a fault, which Gradio logs."""
    try:
        yield
    except PlayheadError as error:
        raise gr.Error(printable(str(error), 2000), print_exception=False) from None
