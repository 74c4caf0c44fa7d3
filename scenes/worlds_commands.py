"""The `worlds` commands of the command line: what there is to play, and adding public worlds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.world.extras import program

if TYPE_CHECKING:
    from playhead.world.catalogue import WorldEntry
    from playhead.world.importing import Progress

app = typer.Typer(invoke_without_command=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def worlds(context: typer.Context, as_json: Json = False) -> None:
    """List the worlds that are here, or add one."""
    if not context.invoked_subcommand:
        list_all(as_json)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the worlds that are here, and the public ones that can be added."""
    from rich.table import Table

    from playhead.world.catalogue import scan_worlds
    from playhead.world.config import OWN_DECODER
    from playhead.world.public import PUBLIC
    from playhead.world.terminal import plural, show, show_json

    here = Table("name", "what it is", title="Here")
    found, broken = scan_worlds()
    if as_json:
        show_json({"here": [*map(_world, found), *_problems(broken)], "public": _public()})
        return
    for entry in found:
        config = entry.config
        weights = f"weights of {entry.weights / 1e6:.1f} MB" if entry.weights else "weights missing"
        if config.generator_weights.startswith("random:"):
            weights = "random weights, drawn at loading"
        size = (
            f"{config.frame_width} x {config.frame_height}, {config.ticks_per_second:g} ticks/s, "
            f"{plural(len(config.sampling.steps), 'step')} a tick, "
            f"{entry.parameters / 1e6:.1f} M parameters, {weights}"
        )
        if config.decoders:
            size += f", decoders {', '.join([OWN_DECODER, *config.decoders])}"
        here.add_row(entry.name, "\n".join([config.title, size, config.licence]))
    for name, why in broken.items():
        here.add_row(name, f"cannot be used: {why}")
    public = Table("name", "what it is", title=f"Public: {program()} worlds get NAME")
    for name, known in PUBLIC.items():
        size = (
            f"{known.config.frame_width} x {known.config.frame_height}, to download about "
            f"{(known.file.size + (known.lora.size if known.lora else 0)) / 1e9:.1f} GB, needs about "
            f"{known.memory / 1e9:.0f} GB of device memory"
        )
        public.add_row(name, "\n".join([known.config.title, size, known.config.licence, str(known.file)]))
    for table in (here, public):
        show(table)


def _world(entry: "WorldEntry") -> dict[str, object]:
    from playhead.world.config import OWN_DECODER

    config = entry.config
    return {
        "name": entry.name, "title": config.title, "licence": config.licence, "family": config.family,
        "width": config.frame_width, "height": config.frame_height,
        "ticks_per_second": config.ticks_per_second, "frames_per_tick": config.frames_per_tick,
        "steps": len(config.sampling.steps), "parameters": entry.parameters, "weights": entry.weights,
        "random": config.generator_weights.startswith("random:"),
        "decoders": [OWN_DECODER, *config.decoders],
    }  # fmt: skip


def _problems(broken: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "problem": why} for name, why in broken.items()]


def _public() -> list[dict[str, object]]:
    from playhead.world.public import PUBLIC

    return [
        {
            "name": name, "title": known.config.title, "licence": known.config.licence,
            "width": known.config.frame_width, "height": known.config.frame_height,
            "download": int(known.file.size + (known.lora.size if known.lora else 0)),
            "memory": int(known.memory), "file": str(known.file),
        }
        for name, known in PUBLIC.items()
    ]  # fmt: skip


@app.command()
def add(
    path: Annotated[str, typer.Argument(help="A checkpoint: PATH or hub:OWNER/REPO/FILE.")],
    autoencoder: Annotated[str | None, typer.Option(help="PATH or hub:…; else lighttaew2_1.")] = None,
    family: Annotated[str, typer.Option(help="auto, or a name of the catalogue.")] = "auto",
    lora: Annotated[str | None, typer.Option(help="A LoRA to merge in: PATH or hub:…")] = None,
    latents: Annotated[str | None, typer.Option(help="raw or normalised, where no name says.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it; else as the catalogue does.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a world that is there.")] = False,
) -> None:
    """Add a public checkpoint: recognise it, check every key and shape, convert it."""
    from playhead.world.hub import fetch, find_autoencoder
    from playhead.world.importing import ImportProblem, add_world

    if latents not in (None, "raw", "normalised"):
        raise ImportProblem(f"--latents is raw or normalised, not `{latents}`")
    with progress() as tell:
        file = fetch(path, tell)
        folder, why = add_world(
            file,
            lambda: fetch(autoencoder, tell) if autoencoder else find_autoencoder(file, tell),
            family=family,
            lora=fetch(lora, tell) if lora else None,
            latents=latents,
            name=name,
            force=force,
            progress=tell,
        )
    typer.echo(f"the world is in {folder} (recognised {why})")


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name of the catalogue.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a world that is there.")] = False,
    scenes: Annotated[bool, typer.Option(help="Prepare its ready scenes too, which needs encoders.")] = True,
) -> None:
    """Fetch a public world from the hub, add it and prepare its ready scenes."""
    from playhead.world.errors import WorldError
    from playhead.world.hub import fetch_all
    from playhead.world.importing import add_world, check_free
    from playhead.world.public import LIGHTTAE, PUBLIC

    if name not in PUBLIC:
        raise WorldError(f"the catalogue has no world `{name}`; it has {', '.join(PUBLIC)}")
    entry = PUBLIC[name]
    check_free(name, force)
    with progress() as tell:
        wanted = [entry.file, LIGHTTAE, *([entry.lora] if entry.lora else [])]
        file, autoencoder, *lora = fetch_all(name, wanted, tell)
        folder, _ = add_world(
            file, autoencoder, family=name, lora=lora[0] if lora else None, force=force, progress=tell
        )
    typer.echo(f"the world is in {folder}; its licence: {entry.config.licence}")
    typer.echo(f"what was downloaded for it is no longer needed: {file.parent}")
    if scenes:
        _prepare(name)


def _prepare(name: str) -> None:
    """Prepares a world's ready scenes; what prevents that is said, and does not undo the world."""
    from playhead.scenes.encoders import Encoders
    from playhead.scenes.prepare import prepare_scenes
    from playhead.scenes.scene import SceneError
    from playhead.world.encoding import load_frame_encoder

    try:
        with progress() as tell:
            made = prepare_scenes(load_frame_encoder(name), Encoders(), progress=tell)
    except SceneError as error:
        typer.echo(f"its scenes are not prepared yet: {error}", err=True)
        typer.echo(f"then: {program()} scenes prepare --world {name}", err=True)
    else:
        typer.echo(f"scenes to play: {', '.join(made)}")


@app.command()
def decoder(
    world: Annotated[str, typer.Argument(help="A public world that is here: name or folder.")],
    source: Annotated[str, typer.Argument(help="lightvae or wan, which are fetched; or PATH or hub:…")],
    name: Annotated[str | None, typer.Option(help="What to call it; else as the source or the file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace one that is there.")] = False,
) -> None:
    """Add a decoder to a public world: LightVAE, the full Wan VAE, or one of another width."""
    from playhead.world.adding_decoders import add_decoder
    from playhead.world.hub import fetch
    from playhead.world.public import DECODERS
    from playhead.world.world_folders import find_world

    folder = find_world(world)
    known = DECODERS.get(source)
    with progress() as tell:
        path = fetch(f"hub:{known.repo}/{known.path}" if known else source, tell)
        called = name or (source if known else path.stem.lower().replace("_", "-"))
        added = add_decoder(folder, path, called, force, tell)
    typer.echo(f"the decoder {called}, of width {added.width}, is in {folder}: play --decoder {called}")


@app.command()
def push(
    world: Annotated[str, typer.Argument(help="A world that is here: name or folder.")],
    repo: Annotated[str, typer.Argument(help="OWNER/REPO on the hub; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make it one that nobody else sees.")] = False,
) -> None:
    """Push a world to the hub: weights, world.toml and a model card, for `World.from_pretrained`."""
    from playhead.world.hub_worlds import push_world
    from playhead.world.world_folders import find_world

    typer.echo(f"the world is at {push_world(find_world(world), repo, private)}")


@app.command()
def random(
    name: Annotated[str, typer.Argument(help="A name of the catalogue, or wan-14b for its size alone.")],
    seed: Annotated[int, typer.Option(help="Of the weights.", min=0)] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="A small one, which any machine plays.")] = False,
) -> None:
    """Make a catalogue world of random weights, and a scene for it: for benchmarks and tests."""
    from playhead.scenes.build import save_scene
    from playhead.scenes.scene import SceneFields
    from playhead.world.home import scenes_folder
    from playhead.world.randomise import random_context, random_world, save_world_config

    config = random_world(name, seed, tiny)
    save_world_config(config)
    said = ("one", "another") if config.generator.text_dim else ()
    fields = SceneFields(
        f"{config.name}-start", "Noise", "Random features.", config.name, seed, "context.npz", said
    )
    folder = save_scene(fields, random_context(config, seed), scenes_folder(), force=True)
    typer.echo(f"the world {config.name} and the scene {folder.name} are there: play --world {config.name}")


@contextmanager
def progress() -> "Iterator[Progress]":
    """A progress bar with an estimate, on the console's error side."""
    from rich.markup import escape
    from rich.progress import Progress as Bar

    from playhead.world.terminal import console

    errors = console(error=True)  # in a pipe the bar would leave an empty line
    with Bar(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda stage, part: bar.update(task, description=escape(stage), completed=part)
