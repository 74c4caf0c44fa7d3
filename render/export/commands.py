"""The `export` command of the command line: what was played, as a film, as pictures or as data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.world.options import Cache, Decoder, Device, Precision, Ram, Vram

if TYPE_CHECKING:
    from rich.console import Console

    from playhead.render.export.episodes import ExportedTick
    from playhead.render.export.film import FilmStyle, Pane
    from playhead.render.export.minari import Attribution
    from playhead.render.export.segment import Segment

    Watch = Callable[[Iterator[ExportedTick]], Iterator[ExportedTick]]


class DatasetKind(StrEnum):
    """The kinds of data sets."""

    EPISODES = "episodes"
    MINARI = "minari"


def export(
    recordings: Annotated[list[str], typer.Argument(help="FILE or FILE@POINT; for a data set also several.")],
    to: Annotated[str, typer.Option(help="A .mp4, .gif, .png (contact sheet), .npz, or a new folder.")],
    kind: Annotated[
        DatasetKind | None,
        typer.Option("--as", help="A data set: --to is its folder, or its name for Minari."),
    ] = None,
    branch: Annotated[int | None, typer.Option(help="Else the newest; of a data set all.")] = None,
    first: Annotated[int, typer.Option("--from", help="The first tick.", min=1)] = 1,
    last: Annotated[int | None, typer.Option("--until", help="The last tick; else the end.", min=1)] = None,
    beside: Annotated[
        str | None, typer.Option(help="Show beside it another branch (2), or FILE, or FILE@POINT.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw the held buttons and the tick.")] = False,
    scale: Annotated[int, typer.Option(help="Enlarge each pixel so many times.", min=1, max=16)] = 1,
    author: Annotated[str, typer.Option(help="Who made a Minari data set.")] = "",
    author_email: Annotated[str, typer.Option(help="How to reach its author.")] = "",
    code_permalink: Annotated[str, typer.Option(help="A link to the code it was made with.")] = "",
    world: Annotated[str | None, typer.Option(help="Its folder, where it is not a known one.")] = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
) -> None:
    """Keep what was played as a film, a contact sheet, frames, pictures or a data set."""
    from playhead.render.export.export import ExportError, check_export
    from playhead.render.export.film import FilmStyle
    from playhead.render.export.minari import Attribution
    from playhead.render.export.segment import RecordingLoader
    from playhead.world.offload.memory_budget import MemoryBudget
    from playhead.world.terminal import console

    credited = author or author_email or code_permalink
    if credited and kind is not DatasetKind.MINARI:
        raise ExportError("an author and a code link belong to a data set of Minari; add --as minari")
    errors = console(error=True)
    loader = RecordingLoader(
        world,
        device,
        lambda said: errors.print(said, style="yellow", highlight=False),
        precision,
        decoder,
        MemoryBudget.parse(vram, ram),
        cache,
    )
    if kind is None:
        check_export(Path(to))
        if len(recordings) > 1:
            raise ExportError("a film is of one recording; name one, or make a data set of them by --as")
        segments = [loader.segment(recordings[0], branch, first, last)]
        if beside is not None:
            segments.append(loader.beside(recordings[0], beside, first, last))
        typer.echo(_export_film(segments, Path(to), FilmStyle(scale, overlay), errors))
        return
    if beside is not None or overlay or scale != 1:
        raise ExportError("a data set has the frames as they were; leave out --beside, --overlay and --scale")
    segments = loader.data(recordings, branch, first, last)
    if kind is DatasetKind.EPISODES:
        typer.echo(_export_episodes(segments, to, errors))
        return
    typer.echo(_export_minari(segments, to, Attribution(author, author_email, code_permalink), errors))


def _export_film(segments: "list[Segment]", to: Path, style: "FilmStyle", console: "Console") -> str:
    import numpy as np
    from rich.progress import track

    from playhead.render.export.export import ClipInfo, ExportError, exporting
    from playhead.render.export.film import draw_film

    clips = [ClipInfo.of(segment.world.config, segment.actions, segment.first) for segment in segments]
    if len({clip.rate for clip in clips}) > 1:
        rates = " and ".join(f"{float(clip.rate):g}" for clip in clips)
        raise ExportError(f"worlds of {rates} frames a second cannot be shown side by side")
    size = style.size([clip.size for clip in clips])
    clip = ClipInfo.of(segments[0].world.config, segments[0].actions, segments[0].first, size)
    titles = [f"branch {segment.branch}" if len(segments) > 1 else "" for segment in segments]
    ticks = _side_by_side([segment.panes(title) for segment, title in zip(segments, titles, strict=True)])
    count, total = 0, max(len(segment.actions) for segment in segments)
    with exporting(to, clip) as write:
        for shown in track(ticks, "exporting", total, console=console):
            frames = range(max(map(len, shown)))
            write(np.stack([draw_film([p[min(i, len(p) - 1)] for p in shown], style) for i in frames]))
            count += len(frames)
    return f"frames in {to}: {count}"


def _side_by_side(segments: "list[Iterator[list[Pane]]]") -> "Iterator[list[list[Pane]]]":
    """Each tick's frames of every take; one that is over stays at its last."""
    shown = [next(segment) for segment in segments]
    while True:
        yield shown
        new = [next(segment, None) for segment in segments]
        if not any(new):
            return
        shown = [after or before for before, after in zip(shown, new, strict=True)]


def _export_episodes(segments: "list[Segment]", to: str, console: "Console") -> str:
    import glob

    from playhead.render.export.episodes import check_episodes, without_cuts, write_episode
    from playhead.render.export.export import ExportError

    folder = Path(to)
    stems = {segment.recording.path.stem for segment in segments}
    for segment in segments:
        check_episodes(segment.recording.space)
    for stem in stems:
        if any(folder.glob(f"{glob.escape(stem)}-[0-9]*.npz")):
            raise ExportError(f"{folder} holds episodes of {stem} already; name another folder")
    if len(stems) < len({segment.recording.path for segment in segments}):
        raise ExportError("two of these recordings have the same name; make a data set of each")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written ({error.strerror}); choose another place") from error
    count = frames = 0
    with _watching(segments, console) as watch:
        for segment in segments:
            place = segment.recording.scene(segment.branch).place or segment.recording.world
            for part, moments in enumerate(without_cuts(watch(segment.moments()))):
                name = f"{segment.recording.path.stem}-{segment.branch:03d}" + (f"-{part}" if part else "")
                frames += write_episode(folder / f"{name}.npz", segment.world.config.action, place, moments)
                count += 1
    return f"episodes in {folder}: {count}, with {frames} frames"


def _export_minari(segments: "list[Segment]", to: str, credits: "Attribution", console: "Console") -> str:
    from playhead.render.export.episodes import without_cuts
    from playhead.render.export.export import ExportError
    from playhead.render.export.minari import check_minari, write_minari

    check_minari(to)
    config = segments[0].world.config
    for segment in segments:
        if segment.world is not segments[0].world:
            raise ExportError(
                f"a data set is of one world, and these are `{config.name}` and `{segment.recording.world}`"
            )
    with _watching(segments, console) as watch:
        episodes = (
            (segment.recording.tree.root(segment.branch).seed, moments)
            for segment in segments
            for moments in without_cuts(watch(segment.moments()))
        )
        count = write_minari(to, config, episodes, credits)
    if credits.missing:
        console.print(credits.missing, style="yellow", highlight=False, soft_wrap=True)
    return f'episodes: {count}; they are loaded by minari.load_dataset("{to}")'


@contextmanager
def _watching(segments: "list[Segment]", console: "Console") -> "Iterator[Watch]":
    """A progress bar of all ticks; what is watched moves it."""
    from rich.progress import Progress

    with Progress(console=console) as progress:
        bar = progress.add_task("exporting", total=sum(len(segment.actions) for segment in segments))

        def watch(moments: "Iterator[ExportedTick]") -> "Iterator[ExportedTick]":
            for number, moment in enumerate(moments):
                progress.update(bar, advance=bool(number))
                yield moment

        yield watch
