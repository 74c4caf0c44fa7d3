"""The `replay` and `recordings` commands of the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.recording.reader import Recording
    from world.world import World


def replay(
    recording: Annotated[Path, typer.Argument(help="A .playhead file.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every frame's hash; no window.")] = False,
    first: Annotated[int, typer.Option("--from", help="The first tick.", min=0)] = 0,
    last: Annotated[int | None, typer.Option("--to", help="The last tick.", min=0)] = None,
    branch: Annotated[int | None, typer.Option(help="Else the newest.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick, else those recorded.")] = None,
    world: Annotated[str | None, typer.Option(help="Its folder, where it is not a known one.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """Simulate a recording again and compare every frame's hash with the recorded one."""
    from rich.console import Console
    from rich.progress import track

    from engine.recording.reader import Recording
    from engine.recording.replay import causes
    from engine.recording.replay import replay as run
    from engine.recording.schema import RecordingError

    kept = Recording.read(recording)
    loaded = load_world(kept, world, device)
    number = kept.tree.newest if branch is None else branch
    end = kept.tree.branch(number).last if last is None else last
    moments = run(kept, loaded, number, first, end, steps)
    for moment in track(moments, "replaying", end - first + 1, console=Console(stderr=True)):
        if not moment.equal:
            why = "; ".join(causes(kept, loaded, moment.place, steps))
            why = why or "nothing that is known of differs, so a hash was changed"
            raise RecordingError(f"{recording} differs from tick {moment.place.tick} on: {why}")
    typer.echo(f"{end - max(first, 1) + 1} ticks, every frame equal")


def load_world(recording: "Recording", world: str | None, device: str) -> "World":
    """The world that a recording was played in. Raises PlayheadError where it is not known here."""
    from engine.recording.schema import RecordingError
    from world.world import World, added_worlds, shipped_worlds

    if world is None and recording.world not in {*shipped_worlds(), *added_worlds()}:
        raise RecordingError(
            f"{recording.path} was played in a world `{recording.world}`; give its folder by --world"
        )
    return World.load(world or recording.world, device)
