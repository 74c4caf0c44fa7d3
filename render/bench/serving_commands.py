"""The `bench` commands of serving: many sessions in one pass, players at a server and at its page."""

from pathlib import Path
from typing import Annotated

import typer

from playhead.world.options import Device
from playhead.world.terminal import plural


def bench_batch(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    sessions: Annotated[str, typer.Option(help="Batch sizes, by commas.")] = "1,4,16,64,256",
    ticks: Annotated[int, typer.Option(help="Ticks to measure for each.", min=5)] = 50,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick; default: as in play.")] = None,
    device: Device = "auto",
    game: Annotated[bool, typer.Option(help="Measure the real game too.")] = True,
) -> None:
    """Step many sessions together and print ticks a second against their number."""
    from rich.table import Table

    from playhead.render.bench import batch, machine
    from playhead.world import acceleration
    from playhead.world.errors import PlayheadError
    from playhead.world.terminal import show
    from playhead.world.world import World

    sizes = [int(part) for part in sessions.split(",") if part.strip().isdigit()]
    if not sizes or min(sizes) < 1 or len(sizes) != len(sessions.split(",")):
        raise PlayheadError(f"--sessions {sessions} is no list of batch sizes, such as 1,4,16")
    loaded = World.load(world, device, steps=steps)
    if loaded.device.type == "cpu":
        import torch

        torch.set_num_threads(acceleration.cores())  # nothing runs beside it, as the window does in play
    typer.echo(f"hardware      {machine.hardware(loaded.device)}")
    typer.echo(
        f"world         {loaded.config.name}, {plural(loaded.steps, 'step')} a tick, "
        "decode and commit included"
    )
    table = Table("sessions", "ticks/s, together", "ms a tick, p50", "p95", "p99")
    for speed in batch.bench_batch(loaded, sizes, ticks):
        times = (f"{speed.percentile(part):.1f}" for part in (0.5, 0.95, 0.99))
        table.add_row(str(speed.sessions), f"{speed.rate:.1f}", *times)
    show(table)
    rate = batch.game_rate() if game else None
    if rate is not None:
        typer.echo(f"real game     {rate:.0f} frames/s: ViZDoom, one core, as `train collect` plays it")


def bench_web(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    presses: Annotated[int, typer.Option(help="Times that a key is pressed for each encoding.", min=5)] = 100,
    ticks: Annotated[int, typer.Option(help="Live ticks for each number of watchers.", min=20)] = 240,
    watchers: Annotated[int, typer.Option(help="Pages that watch beside none.", min=1, max=64)] = 20,
    device: Device = "auto",
) -> None:
    """Play in a headless browser on this machine, and print what that costs beyond the ticks."""
    from playhead.render.bench import machine
    from playhead.render.bench.browser import bench_keys, bench_watching_pages, headless, page_door
    from playhead.scenes.scene import load_scene, scenes_of
    from playhead.world.world import World

    loaded = World.load(world, device)
    loaded.share_cores()
    config = loaded.config
    start = load_scene(scene) if scene else scenes_of(config)[0]
    typer.echo(f"hardware      {machine.hardware(loaded.device)}")
    typer.echo(f"world         {config.name}, {config.frame_width} x {config.frame_height}")
    with page_door(loaded, start) as (server, door), headless() as browser:
        typer.echo(f"browser       Chromium {browser.capabilities['browserVersion']}, headless")
        for codec in ("jpeg", "h264"):
            found = bench_keys(server, door, browser, presses, codec)
            typer.echo(f"{found.codec:<13} {len(found.whole)} changes of keys, {found.rate:.1f} ticks/s seen")
            typer.echo(f"key to frame  {machine.spread(found.whole)} ms p50 / p95 / p99")
            typer.echo(f"beyond tick   {machine.spread(found.beyond)} ms p50 / p95 / p99")
        session = next(iter(server.sessions)).id
        for phase in bench_watching_pages(server, door, session, [0, watchers, 0, watchers], ticks):
            typer.echo(
                f"watched       by {phase.watchers}: {phase.missed} of {phase.counted} ticks missed, "
                f"{1000 * phase.tick_p50:.1f} ms p50, {1000 * phase.tick_p99:.1f} ms p99"
            )


def bench_bridge(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[Path | None, typer.Option(help="Folder of a scene, if the world has none.")] = None,
    steps: Annotated[int, typer.Option(help="Steps to measure in lockstep.", min=50)] = 500,
    ticks: Annotated[int, typer.Option(help="Live ticks for each number of watchers.", min=20)] = 240,
    watchers: Annotated[int, typer.Option(help="Watchers beside none.", min=1, max=64)] = 8,
    device: Device = "auto",
) -> None:
    """Play through a server on this machine, and print what that costs beyond the ticks."""
    from playhead.render.bench import machine
    from playhead.render.bench.bridge import bench_steps, bench_watchers, served
    from playhead.world.acceleration import pick_device

    typer.echo(f"hardware      {machine.hardware(pick_device(device))}")
    with served(world, scene, device) as address:
        found = bench_steps(address, steps)
        typer.echo(f"lockstep      {len(found.ticks)} steps, one action and its raw frames each")
        typer.echo(f"tick          {machine.spread(found.ticks)} ms p50 / p95 / p99")
        typer.echo(f"bridge        {machine.spread(found.beyond, 3)} ms p50 / p95 / p99, beyond the tick")
        missed: dict[int, list[int]] = {}
        for phase in bench_watchers(address, [0, watchers, 0, watchers], ticks):
            seen = missed.setdefault(phase.watchers, [0, 0])
            seen[0], seen[1] = seen[0] + phase.missed, seen[1] + phase.counted
            typer.echo(
                f"live          {phase.watchers} watchers: {phase.missed} of {phase.counted} ticks missed, "
                f"{1000 * phase.tick_p50:.1f} ms p50, {1000 * phase.tick_p99:.1f} ms p99"
            )
    rates = {count: f"{part / whole:.3f}" for count, (part, whole) in missed.items()}
    typer.echo(f"misses        {rates[0]} of all ticks with no watcher, {rates[watchers]} with {watchers}")


def bench_serve(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[Path | None, typer.Option(help="Folder of a scene, if the world has none.")] = None,
    sessions: Annotated[int, typer.Option(help="Clients, each with a session.", min=1, max=256)] = 64,
    seconds: Annotated[float, typer.Option(help="How long they play.", min=1)] = 10,
    actions: Annotated[int, typer.Option(help="Actions of a request, a tick each.", min=1, max=256)] = 1,
    frames: Annotated[str, typer.Option(help="Which frames are sent: all, last or none.")] = "all",
    device: Device = "auto",
) -> None:
    """Play many sessions through a server on this machine, then as many as `bench batch` does."""
    from typing import cast

    from playhead.engine.bridge.wire import protocol as p
    from playhead.render.bench import batch, machine
    from playhead.render.bench.bridge import served
    from playhead.render.bench.many_clients import bench_clients
    from playhead.world import acceleration
    from playhead.world.errors import PlayheadError
    from playhead.world.world import World

    sent = {"all": "all raw frames", "last": "the last one's raw frames", "none": "no frames"}.get(frames)
    if sent is None:
        raise PlayheadError(f"--frames {frames} is none of all, last and none")
    typer.echo(f"hardware      {machine.hardware(acceleration.pick_device(device))}")
    lent = "--sessions", str(sessions), "--memory", str(2**17), "--rate", "1000000"
    said: list[str] = []
    with served(world, scene, device, *lent, said=said) as address:
        found = bench_clients(address, sessions, seconds, actions, cast(p.Sent, frames))
    typer.echo(
        f"clients       {plural(sessions, 'session')}, a connection each; {plural(actions, 'action')} "
        f"a request, {sent}"
    )
    for line in said:
        typer.echo(f"server        {line}")
    typer.echo(f"serve         {found.rate:.1f} ticks/s together: {found.ticks} in {seconds:g} s")
    typer.echo(f"request       {machine.spread(found.requests)} ms p50 / p95 / p99")
    loaded = World.load(world, device)
    if loaded.device.type == "cpu":
        import torch

        torch.set_num_threads(acceleration.cores())
    (speed,) = batch.bench_batch(loaded, [sessions], 50)
    typer.echo(f"bench batch   {speed.rate:.1f} ticks/s together: {sessions} in one pass, in this process")
    typer.echo(f"ratio         {found.rate / speed.rate:.2f}")
