"""The `scenes` commands of the command line: the one module here that looks beyond `world/`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from playhead.engine.recording.replay import ReplayedTick
    from playhead.scenes.scene import SceneFields
    from playhead.world.context import Context

app = typer.Typer(invoke_without_command=True)
_PLACE = "--place says what a picture is dreamed as, in a world without prompts: it goes with --image alone"


@app.callback()
def scenes(
    context: typer.Context,
    thumbnails: Annotated[Path | None, typer.Option(help="Folder for a PNG of each scene.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the scenes to start from, or make one."""
    if context.invoked_subcommand:
        return
    from rich.table import Table

    from playhead.scenes.scene import ready_scenes, scan_scenes
    from playhead.world.terminal import show, show_json

    fields = ("name", "title", "world", "place", "seed")
    table = Table(*fields)
    rows: list[dict[str, object]] = []
    found, broken = scan_scenes()
    for scene in found:
        table.add_row(scene.name, scene.title, scene.world, scene.place, str(scene.seed))
        rows.append({field: getattr(scene, field) for field in fields} | {"state": "ready"})
    for name, why in broken.items():
        table.add_row(name, f"cannot be used: {why}")
        rows.append({"name": name, "state": "broken", "problem": why})
    for ready in ready_scenes():
        if ready.name not in {*(scene.name for scene in found), *broken}:
            table.add_row(ready.name, ready.title, ready.world, "to be prepared", str(ready.seed))
            known = {"name": ready.name, "title": ready.title, "world": ready.world, "seed": ready.seed}
            rows.append({**known, "state": "to be prepared"})
    if thumbnails is not None:
        from playhead.render.export.sheet import write_png
        from playhead.scenes.scene import SceneError

        try:
            thumbnails.mkdir(parents=True, exist_ok=True)
            for scene in (s for s in found if len(s.context.frames)):
                write_png(thumbnails / f"{scene.name}.png", scene.context.frames[-1])
        except OSError as error:
            raise SceneError(
                f"{thumbnails} cannot be written ({error.strerror}); choose another folder"
            ) from error
    if as_json:
        show_json(rows)
    else:
        show(table)


@app.command()
def new(
    name: Annotated[str, typer.Option(help="Name of the scene and of its folder.")],
    title: Annotated[str | None, typer.Option(help="What a person calls it; else its name.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="An episode, or a moment of a recording (FILE@TICK).")
    ] = None,
    frame: Annotated[int | None, typer.Option(help="Of an episode: the frame on which play starts.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Of a public world; up to nine times.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to start from.")] = None,
    place: Annotated[
        str | None, typer.Option(help="Of a picture: which of the world's places it is dreamed as.")
    ] = None,
    settle: Annotated[int, typer.Option(help="Ticks dreamed with nothing held after a picture.")] = 4,
    encoders: Annotated[str | None, typer.Option(help="Folder or hub repository of the encoders.")] = None,
    vae: Annotated[str | None, typer.Option(help="File, folder or hub repository of a Wan VAE.")] = None,
    description: Annotated[str, typer.Option(help="One sentence about it.")] = "",
    length: Annotated[
        int | None, typer.Option(help="Frames of context; else 8, of a recording all that is remembered.")
    ] = None,
    world: Annotated[str | None, typer.Option(help="Else the recording's, or freedoom.")] = None,
    seed: Annotated[int | None, typer.Option(help="Else the recording's, or 0.")] = None,
    out: Annotated[Path, typer.Option(help="The scene becomes OUT/NAME.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace a scene that is there.")] = False,
) -> None:
    """Make a scene: of an episode, a recording or a picture, or of prompts for a public world."""
    from playhead.scenes.build import check_new, cut_scene, save_scene
    from playhead.scenes.scene import SceneError, SceneFields

    said = tuple(prompt or ())
    named = title or name.replace("-", " ").capitalize()
    fields = SceneFields(name, named, description, world or "freedoom", seed or 0, "context.npz", said)
    if source is not None and (said or image is not None):
        raise SceneError("a scene begins either --from something or with a --prompt or --image: choose one")
    if place is not None and image is None:
        raise SceneError(_PLACE)
    if source is not None and not source.endswith(".npz"):
        if frame is not None:
            raise SceneError("a moment of a recording is named by its tick: --from FILE@140, without --frame")
        check_new(fields, out, force)
        folder = _save_moment(source, fields, world, seed, length, out, force)
    elif source is not None and frame is not None:
        folder = cut_scene(Path(source), frame, 8 if length is None else length, fields, out, force)
    elif source is not None or frame is not None or not (said or image):
        raise SceneError(
            "a scene is made of --from EPISODE and --frame N, --from FILE@TICK, --prompt or --image"
        )
    else:
        check_new(fields, out, force)
        length = 8 if length is None else length
        context = _dream_start(fields, image, place, length, settle, encoders, vae)
        folder = save_scene(fields, context, out, force)
    typer.echo(f"the scene is in {folder}")


def _save_moment(
    source: str,
    fields: "SceneFields",
    world: str | None,
    seed: int | None,
    length: int | None,
    out: Path,
    force: bool,
) -> Path:
    """Writes the scene of a moment of a recording, FILE@POINT. Returns its folder."""
    from msgspec.structs import replace
    from rich.progress import track

    from playhead.engine.recording.finding import find_recording
    from playhead.engine.recording.moment import moment_scene
    from playhead.engine.recording.reader import Recording
    from playhead.engine.recording.replay import load_world, telling
    from playhead.scenes.build import save_scene
    from playhead.world.terminal import console

    path, moment = find_recording(source)
    recording = Recording.read(path)
    point = recording.tree.parse(moment)
    loaded = load_world(recording, world, "auto")
    errors = console(error=True)

    def watch(moments: "Iterable[ReplayedTick]") -> "Iterable[ReplayedTick]":
        told = telling(
            moments, recording, loaded, lambda said: errors.print(said, style="yellow", highlight=False)
        )
        return track(told, "replaying", point.tick + 1, console=errors)

    length = loaded.config.sampling.window if length is None else length
    scene = moment_scene(recording, loaded, point, length, watch)
    root = recording.tree.root(point.branch)
    fields = replace(
        fields,
        description=fields.description or f"{scene.title or scene.name}, from tick {point.tick} on.",
        world=world or scene.world,
        seed=root.seed if seed is None else seed,
        prompts=scene.prompts,
    )
    return save_scene(fields, scene.context, out, force)


def _dream_start(
    fields: "SceneFields",
    image: Path | None,
    place: str | None,
    length: int,
    settle: int,
    encoders: str | None,
    vae: str | None,
) -> "Context":
    """The context that a world needs of prompts and a picture: by encoders, or by the world alone."""
    from playhead.scenes.encoders import IMAGE, TEXT, Encoders, make_context
    from playhead.scenes.scene import SceneError
    from playhead.scenes.settle import settle_picture, settles
    from playhead.world.public import PROMPTS
    from playhead.world.world import World

    prompts = fields.prompts
    if len(prompts) > PROMPTS:
        raise SceneError(f"a scene has at most {PROMPTS} prompts, not {len(prompts)}")
    loaded = World.load(fields.world, "cpu")
    loaded.share_cores()
    if image is not None and not prompts and settles(loaded.config):
        return settle_picture(loaded, image, length, settle, fields.seed, place or "")
    if place is not None:
        raise SceneError(_PLACE)
    return make_context(loaded, prompts, image, Encoders(encoders or TEXT, encoders or IMAGE, vae))


@app.command()
def prepare(
    world: Annotated[str, typer.Option(help="The public world that they are for.")],
    name: Annotated[list[str] | None, typer.Argument(help="Ready scenes; else all of the world's.")] = None,
    encoders: Annotated[str | None, typer.Option(help="Folder or hub repository of the encoders.")] = None,
    vae: Annotated[str | None, typer.Option(help="File, folder or hub repository of a Wan VAE.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make those anew that are there.")] = False,
) -> None:
    """Encode the prompts and pictures of ready scenes, once; fetches the encoders where they are not here."""
    from playhead.scenes.encoders import IMAGE, TEXT, Encoders
    from playhead.scenes.prepare import prepare_scenes
    from playhead.scenes.worlds_commands import progress
    from playhead.world.encoding import load_frame_encoder

    with progress() as tell:
        made = prepare_scenes(
            load_frame_encoder(world),
            Encoders(encoders or TEXT, encoders or IMAGE, vae),
            name or (),
            force,
            tell,
        )
    for scene, now in made.items():
        typer.echo(f"{scene}: {'prepared' if now else 'was prepared already'}")
