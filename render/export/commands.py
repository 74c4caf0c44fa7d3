"""The `export` command of the command line: what was played, as a film, as pictures or as data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from playhead.render.export.episodes import Moment
    from playhead.render.export.film import Pane, Style
    from playhead.render.export.minari import Credits
    from playhead.render.export.take import Take

    Watch = Callable[[Iterator[Moment]], Iterator[Moment]]


class Data(StrEnum):
    """The kinds of data sets."""

    EPISODES = "episodes"
    MINARI = "minari"


def export(
    recordings: Annotated[list[str], typer.Argument(help="FILE or FILE@PLACE; for a data set also several.")],
    to: Annotated[str, typer.Option(help="A .mp4, .gif, .png (contact sheet), .npz, or a new folder.")],
    kind: Annotated[
        Data | None, typer.Option("--as", help="A data set: --to is its folder, or its name for Minari.")
    ] = None,
    branch: Annotated[int | None, typer.Option(help="Else the newest; of a data set all.")] = None,
    first: Annotated[int, typer.Option("--from", help="The first tick.", min=1)] = 1,
    last: Annotated[int | None, typer.Option("--until", help="The last tick; else the end.", min=1)] = None,
    beside: Annotated[
        str | None, typer.Option(help="Show beside it another branch (2), or FILE, or FILE@PLACE.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw the held buttons and the tick.")] = False,
    scale: Annotated[int, typer.Option(help="Enlarge each pixel so many times.", min=1, max=16)] = 1,
    author: Annotated[str, typer.Option(help="Who made a Minari data set.")] = "",
    author_email: Annotated[str, typer.Option(help="How to reach its author.")] = "",
    code_permalink: Annotated[str, typer.Option(help="A link to the code it was made with.")] = "",
    world: Annotated[str | None, typer.Option(help="Its folder, where it is not a known one.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """Keep what was played as a film, a contact sheet, frames, pictures or a data set."""
    from playhead.render.export.export import ExportError, check_export
    from playhead.render.export.film import Style
    from playhead.render.export.minari import Credits
    from playhead.render.export.take import Shelf
    from playhead.world.terminal import console

    credited = author or author_email or code_permalink
    if credited and kind is not Data.MINARI:
        raise ExportError("an author and a code link belong to a data set of Minari; add --as minari")
    errors = console(error=True)
    shelf = Shelf(world, device, lambda said: errors.print(said, style="yellow", highlight=False))
    if kind is None:
        check_export(Path(to))
        if len(recordings) > 1:
            raise ExportError("a film is of one recording; name one, or make a data set of them by --as")
        takes = [shelf.take(recordings[0], branch, first, last)]
        if beside is not None:
            takes.append(shelf.beside(recordings[0], beside, first, last))
        typer.echo(_export_film(takes, Path(to), Style(scale, overlay), errors))
        return
    if beside is not None or overlay or scale != 1:
        raise ExportError("a data set has the frames as they were; leave out --beside, --overlay and --scale")
    takes = shelf.data(recordings, branch, first, last)
    if kind is Data.EPISODES:
        typer.echo(_export_episodes(takes, to, errors))
        return
    typer.echo(_export_minari(takes, to, Credits(author, author_email, code_permalink), errors))


def _export_film(takes: "list[Take]", to: Path, style: "Style", console: "Console") -> str:
    import numpy as np
    from rich.progress import track

    from playhead.render.export.export import Clip, ExportError, exporting
    from playhead.render.export.film import draw_film

    clips = [Clip.of(take.world.config, take.actions, take.first) for take in takes]
    if len({clip.rate for clip in clips}) > 1:
        rates = " and ".join(f"{float(clip.rate):g}" for clip in clips)
        raise ExportError(f"worlds of {rates} frames a second cannot be shown side by side")
    size = style.size([clip.size for clip in clips])
    clip = Clip.of(takes[0].world.config, takes[0].actions, takes[0].first, size)
    titles = [f"branch {take.branch}" if len(takes) > 1 else "" for take in takes]
    ticks = _side_by_side([take.panes(title) for take, title in zip(takes, titles, strict=True)])
    count, total = 0, max(len(take.actions) for take in takes)
    with exporting(to, clip) as write:
        for shown in track(ticks, "exporting", total, console=console):
            frames = range(max(map(len, shown)))
            write(np.stack([draw_film([p[min(i, len(p) - 1)] for p in shown], style) for i in frames]))
            count += len(frames)
    return f"frames in {to}: {count}"


def _side_by_side(takes: "list[Iterator[list[Pane]]]") -> "Iterator[list[list[Pane]]]":
    """Each tick's frames of every take; one that is over stays at its last."""
    shown = [next(take) for take in takes]
    while True:
        yield shown
        new = [next(take, None) for take in takes]
        if not any(new):
            return
        shown = [after or before for before, after in zip(shown, new, strict=True)]


def _export_episodes(takes: "list[Take]", to: str, console: "Console") -> str:
    import glob

    from playhead.render.export.episodes import check_episodes, without_cuts, write_episode
    from playhead.render.export.export import ExportError

    folder = Path(to)
    stems = {take.recording.path.stem for take in takes}
    for take in takes:
        check_episodes(take.recording.space)
    for stem in stems:
        if any(folder.glob(f"{glob.escape(stem)}-[0-9]*.npz")):
            raise ExportError(f"{folder} holds episodes of {stem} already; name another folder")
    if len(stems) < len({take.recording.path for take in takes}):
        raise ExportError("two of these recordings have the same name; make a data set of each")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written ({error.strerror}); choose another place") from error
    count = frames = 0
    with _watching(takes, console) as watch:
        for take in takes:
            place = take.recording.scene(take.branch).place or take.recording.world
            for part, moments in enumerate(without_cuts(watch(take.moments()))):
                name = f"{take.recording.path.stem}-{take.branch:03d}" + (f"-{part}" if part else "")
                frames += write_episode(folder / f"{name}.npz", take.world.config.action, place, moments)
                count += 1
    return f"episodes in {folder}: {count}, with {frames} frames"


def _export_minari(takes: "list[Take]", to: str, credits: "Credits", console: "Console") -> str:
    from playhead.render.export.episodes import without_cuts
    from playhead.render.export.export import ExportError
    from playhead.render.export.minari import check_minari, write_minari

    check_minari(to)
    config = takes[0].world.config
    for take in takes:
        if take.world is not takes[0].world:
            raise ExportError(
                f"a data set is of one world, and these are `{config.name}` and `{take.recording.world}`"
            )
    with _watching(takes, console) as watch:
        episodes = (
            (take.recording.tree.root(take.branch).seed, moments)
            for take in takes
            for moments in without_cuts(watch(take.moments()))
        )
        count = write_minari(to, config, episodes, credits)
    if credits.missing:
        console.print(credits.missing, style="yellow", highlight=False, soft_wrap=True)
    return f'episodes: {count}; they are loaded by minari.load_dataset("{to}")'


@contextmanager
def _watching(takes: "list[Take]", console: "Console") -> "Iterator[Watch]":
    """A progress bar of all ticks; what is watched moves it."""
    from rich.progress import Progress

    with Progress(console=console) as progress:
        bar = progress.add_task("exporting", total=sum(len(take.actions) for take in takes))

        def watch(moments: "Iterator[Moment]") -> "Iterator[Moment]":
            for number, moment in enumerate(moments):
                progress.update(bar, advance=bool(number))
                yield moment

        yield watch
