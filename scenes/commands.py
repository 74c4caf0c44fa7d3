"""The `scenes` commands of the command line: the one module here that looks beyond `world/`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def scenes(
    context: typer.Context,
    thumbnails: Annotated[Path | None, typer.Option(help="Folder for a PNG of each scene.")] = None,
) -> None:
    """List the scenes to start from, or make one."""
    if context.invoked_subcommand:
        return
    from rich.console import Console
    from rich.table import Column, Table

    from scenes.scene import list_scenes

    table = Table(Column("name", no_wrap=True), "title", "world", Column("place", overflow="fold"), "seed")
    found = list_scenes()
    for scene in found:
        table.add_row(scene.name, scene.title, scene.world, scene.place, str(scene.seed))
    if thumbnails is not None:
        from render.sheet import write_png
        from scenes.scene import SceneError

        try:
            thumbnails.mkdir(parents=True, exist_ok=True)
            for scene in found:
                write_png(thumbnails / f"{scene.name}.png", scene.context.frames[-1])
        except OSError as error:
            raise SceneError(
                f"{thumbnails} cannot be written ({error.strerror}); choose another folder"
            ) from error
    Console().print(table)


@app.command()
def new(
    episode: Annotated[Path, typer.Option("--from", help="An episode, as `train collect` makes them.")],
    frame: Annotated[int, typer.Option(help="Number of the frame on which play starts.")],
    name: Annotated[str, typer.Option(help="Name of the scene and of its folder.")],
    title: Annotated[str, typer.Option(help="What a person calls it.")],
    description: Annotated[str, typer.Option(help="One sentence about it.")] = "",
    length: Annotated[int, typer.Option(help="Frames of context, the last of them FRAME.")] = 8,
    world: Annotated[str, typer.Option(help="The world that it is played in.")] = "freedoom",
    seed: Annotated[int, typer.Option(help="The seed that it starts with.")] = 0,
    out: Annotated[Path, typer.Option(help="The scene becomes OUT/NAME.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace a scene that is there.")] = False,
) -> None:
    """Cut a scene out of an episode."""
    from scenes.build import cut_scene
    from scenes.scene import SceneFields

    fields = SceneFields(name, title, description, world, seed, "context.npz")
    folder = cut_scene(episode, frame, length, fields, out, force)
    typer.echo(f"the scene is in {folder}")
