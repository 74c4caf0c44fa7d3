"""The `replay` and `recordings` commands of the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.world.errors import PlayheadError
from playhead.world.options import Cache, Decoder, DecoderDevice, Device, Gpus, Precision, Ram, Vram

if TYPE_CHECKING:
    from playhead.engine.recording.reader import Recording
    from playhead.engine.recording.replay import Divergence
    from playhead.world.offload.memory_budget import MemoryBudget
    from playhead.world.world import World

app = typer.Typer(invoke_without_command=True, help="Look after recordings.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[str, typer.Argument(help="A .playhead file, or the name of one in the recordings folder.")]
OPEN_END = "its end is not sealed: it was killed or is being recorded, so its last ticks may have been lost"
Out = Annotated[Path | None, typer.Option(help="The new file; by default beside the old one.")]


def replay(
    recording: File,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every frame's hash; no window.")] = False,
    first: Annotated[int, typer.Option("--from", help="The first tick.", min=0)] = 0,
    last: Annotated[int | None, typer.Option("--to", help="The last tick.", min=0)] = None,
    branch: Annotated[int | None, typer.Option(help="Else the newest; to --verify: all.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick, else those recorded.")] = None,
    speed: Annotated[float, typer.Option(help="In the window: 0.25 (slow motion) to 2.")] = 1.0,
    world: Annotated[str | None, typer.Option(help="Its folder, where it is not a known one.")] = None,
    device: Device = "auto",
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    gpus: Gpus = None,
    decoder_device: DecoderDevice = None,
) -> None:
    """Watch a recording in a window, or compare it with what is simulated here (--verify)."""
    from playhead.engine.recording.finding import find_recording
    from playhead.engine.recording.reader import Recording
    from playhead.world.offload.memory_budget import MemoryBudget

    budget = MemoryBudget.parse(vram, ram)
    path, point = find_recording(recording)
    kept = Recording.read(path)
    named = kept.tree.parse(point)
    number, first = (branch if branch is not None else named.branch), first or (named.tick if point else 0)
    end = kept.tree.branch(number).last if last is None else last
    kept.tree.check_range(number, first, end)
    if verify:
        from playhead.engine.recording.replay import load_world

        whole = branch is None and not first and last is None
        loaded = load_world(kept, world, device, precision, decoder, budget, cache, gpus, decoder_device)
        _verify(kept, loaded, None if whole else number, first, end, steps)
    else:
        _watch(
            kept,
            number,
            first,
            end,
            steps,
            speed,
            world,
            device,
            precision,
            decoder,
            budget,
            cache,
            gpus,
            decoder_device,
        )


def _verify(
    kept: "Recording", world: "World", branch: int | None, first: int, last: int, steps: int | None
) -> None:
    from rich.progress import track

    from playhead.engine.recording.replay import verify
    from playhead.world.terminal import console

    count = kept.tree.count if branch is None else last - max(first, 1) + 1
    found = verify(
        kept, world, branch, steps, first=first, last=last,
        track=lambda moments: track(moments, "replaying", count, console=console(error=True)),
    )  # fmt: skip
    if found is not None:
        raise _difference(kept, found)
    branches = (
        f" of {len(kept.tree.branches)} branches" if branch is None and len(kept.tree.branches) > 1 else ""
    )
    typer.echo(f"{count} ticks{branches}, every frame equal")
    if not kept.sealed:
        typer.echo(OPEN_END)


def _watch(
    kept: "Recording", branch: int, first: int, last: int, steps: int | None, speed: float,
    world: str | None, device: str, precision: str | None, decoder: str | None,
    budget: "MemoryBudget | None", cache: str | None, gpus: int | None,
    decoder_device: str | None,
) -> None:  # fmt: skip
    from playhead.render.window.play import play
    from playhead.render.window.settings import PaceSettings, PlaySettings, ReplayRange, SessionSettings

    timeline = play(
        PlaySettings(
            SessionSettings(
                world=world, steps=steps, device=device, continued=str(kept.path),
                replayed=ReplayRange(branch, first, last), precision=precision, decoder=decoder,
                budget=budget, cache=cache, gpus=gpus, decoder_device=decoder_device,
            ),
            PaceSettings(speed=speed),
        )
    )  # fmt: skip
    if timeline is None or timeline.head is None:
        return
    if timeline.differs is not None:
        from playhead.engine.recording.replay import Divergence, causes, load_world

        here = load_world(kept, world, device, precision, decoder, budget, cache, gpus, decoder_device)
        why = causes(kept, here, timeline.differs, steps)
        raise _difference(kept, Divergence(timeline.differs, why))
    typer.echo(f"watched to tick {timeline.head.tick}, every frame equal")


def _difference(kept: "Recording", found: "Divergence") -> PlayheadError:
    """The sentence that names the first tick that differs, and why."""
    from playhead.engine.recording.schema import RecordingError

    why = "; ".join(found.causes) or "nothing that is known of differs, so a hash was changed"
    return RecordingError(f"{kept.path} differs from tick {found.point.tick} on: {why}")


@app.callback()
def recordings(context: typer.Context, as_json: Json = False) -> None:
    """List the recordings, or look after one."""
    if context.invoked_subcommand is None:
        list_recordings(as_json=as_json)


@app.command("list")
def list_recordings(
    folder: Annotated[Path | None, typer.Argument(help="Else where plays are recorded.")] = None,
    as_json: Json = False,
) -> None:
    """List the recordings in a folder by name; play names them after time and scene."""
    from dataclasses import asdict

    from rich.table import Table

    from playhead.engine.recording.finding import Summary
    from playhead.engine.recording.schema import RecordingError
    from playhead.world.home import recordings_folder
    from playhead.world.terminal import show, show_json

    folder = folder or recordings_folder()
    if folder is None:
        raise RecordingError("PLAYHEAD_RECORDINGS is `off`, so there is no folder; give one")
    rows: list[dict[str, object]] = []
    table = Table("name", "scene", "world", "length", "branches", "bookmarks")
    for path in sorted(folder.glob("*.playhead")):
        try:
            found = Summary.read(path)
        except RecordingError as error:
            table.add_row(path.stem, "damaged: see `recordings info`")
            rows.append({"name": path.stem, "problem": str(error)})
            continue
        rows.append({"name": path.stem, **asdict(found), "seconds": found.ticks / found.rate})
        numbers = (length(found.ticks / found.rate), str(found.branches), str(found.bookmarks))
        table.add_row(path.stem, found.title, found.world, *numbers)
    if as_json:
        show_json({"folder": str(folder), "recordings": rows})
        return
    typer.echo(str(folder))
    show(table)


@app.command()
def info(recording: File) -> None:
    """Say what is in a recording: plays, branches, bookmarks, and what is damaged."""
    import time

    from rich.table import Table

    from playhead.engine.recording.finding import find_recording
    from playhead.engine.recording.reader import Recording
    from playhead.world.terminal import show

    path, _ = find_recording(recording)
    kept = Recording.read(path, whole=False)
    tree = kept.tree
    size = path.stat().st_size / 1e3
    typer.echo(f"{path}: {size:.0f} kB, {tree.count} ticks, {length(tree.count / kept.rate)}")
    typer.echo(f"world {kept.world} ({kept.fingerprint.get('generator', '')[:8]}), id {kept.id}")
    for number, (when, environment) in kept.plays.items():
        said = ", ".join(f"{key} {value}" for key, value in environment.items())
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
        typer.echo(f"play {number}: {began}; {said}")
    table = Table("branch", "from", "ticks", "length", "scene", "seed", "play", "sources")
    for branch in tree.branches.values():
        begins = str(branch.parent) if branch.parent is not None else "its start"
        spans = f"{branch.first + 1} to {branch.last}" if branch.ticks else "none"
        scene, ran = kept.scenes[branch.scene].title, length(len(branch.ticks) / kept.rate)
        sources = ", ".join(sorted({played.source for played in branch.ticks}))
        row = (str(branch.id), begins, spans, ran, scene, str(branch.seed), str(branch.play), sources)
        table.add_row(*row)
    show(table)
    for mark in tree.bookmarks:
        typer.echo(f"bookmark {mark.point} {mark.name}")
    if not kept.sealed:
        typer.echo(OPEN_END)
    for problem in kept.problems:
        typer.echo(f"damaged: {problem}")
    if kept.problems:
        typer.echo("`recordings repair` saves what is whole")


@app.command()
def repair(recording: File, out: Out = None) -> None:
    """Save what is whole of a damaged recording to a new file; the old one stays as it is."""
    from playhead.engine.recording.edit import repair as run
    from playhead.engine.recording.finding import find_recording

    path, _ = find_recording(recording)
    out = out or _beside(path, "repaired")
    found = run(path, out)
    for problem in found.problems:
        typer.echo(f"lost: {problem}")
    if not found.problems:
        typer.echo("nothing is damaged")
    typer.echo(f"{found.tree.count} ticks of {len(found.tree.branches)} branches are in {out}")


@app.command()
def trim(
    recording: File,
    to: Annotated[str, typer.Option(help="The last moment that stays: a tick, BRANCH:TICK or a bookmark.")],
    out: Out = None,
) -> None:
    """Write a recording without what comes after a moment, to a new file."""
    from playhead.engine.recording.edit import trim as run
    from playhead.engine.recording.finding import find_recording

    path, _ = find_recording(recording)
    out = out or _beside(path, "trimmed")
    typer.echo(f"{run(path, to, out).tree.count} ticks are in {out}")


@app.command()
def split(
    recording: File,
    branch: Annotated[int, typer.Option(help="The branch that gets a file of its own.")],
    out: Out = None,
) -> None:
    """Write one branch, from its start on, to a file of its own."""
    from playhead.engine.recording.edit import split as run
    from playhead.engine.recording.finding import find_recording

    path, _ = find_recording(recording)
    out = out or _beside(path, f"branch-{branch}")
    typer.echo(f"{run(path, branch, out).tree.count} ticks are in {out}")


@app.command()
def merge(
    recordings: Annotated[list[str], typer.Argument(help="Two files or more, of one world.")],
    out: Annotated[Path, typer.Option(help="The new file.")],
) -> None:
    """Write several recordings of one world to one file; what they share is there once."""
    from playhead.engine.recording.edit import merge as run
    from playhead.engine.recording.finding import find_recording
    from playhead.engine.recording.schema import RecordingError

    if len(recordings) < 2:
        raise RecordingError("merging needs two recordings or more")
    found = run([find_recording(name)[0] for name in recordings], out)
    typer.echo(f"{found.tree.count} ticks of {len(found.tree.branches)} branches are in {out}")


def length(seconds: float) -> str:
    """A time as minutes and seconds: `3:07`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}-{what}.playhead")
