"""The `bench` commands of the command line."""

import time
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")


@app.callback()
def bench() -> None:
    """Measure speed on this machine."""


@app.command("play")
def bench_play(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    ticks: Annotated[int, typer.Option(help="Ticks to measure.", min=50)] = 300,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick; default: as in play.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    attention: Annotated[str | None, typer.Option(help="A backend; default: the fastest right one.")] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Also time a tick's stages apart.")] = False,
) -> None:
    """Play as fast as the machine can, window and all, and print what a tick takes."""
    began = time.perf_counter()
    from render import bench
    from scenes.scene import load_scene, scenes_of
    from world.world import World

    loaded = World.load(world, device, steps=steps, attention=attention)
    start = load_scene(scene) if scene else scenes_of(loaded.config.name, loaded.config.family)[0]
    measured = bench.bench_play(loaded, start, ticks, began)
    config = loaded.config
    typer.echo(f"hardware      {bench.hardware(loaded.device)}")
    typer.echo(
        f"world         {config.name}, {config.frame_width} x {config.frame_height}, "
        f"{loaded.steps} steps a tick, {str(loaded.dtype).removeprefix('torch.')}"
    )
    typer.echo(f"measured      {len(measured.apart)} ticks, decode, commit and display included")
    typer.echo(f"rate          {measured.rate:.1f} ticks/s (the world's own: {config.ticks_per_second:g})")
    typer.echo(f"tick          {bench.spread(measured.apart)} ms p50 / p95 / p99, from frame to frame")
    typer.echo(f"key to frame  {bench.spread(measured.to_frame)} ms, from the input's sample to the frame")
    typer.echo(f"key to screen {bench.spread(measured.to_display)} ms, to the end of the window's flip")
    typer.echo(f"start         {measured.start:.1f} s from loading to the first dreamed frame on screen")
    if loaded.attention is not None:
        typer.echo(f"attention     {loaded.attention}")
    if stages:
        for name, times in bench.bench_stages(loaded, start, min(ticks, 20)).items():
            typer.echo(f"{name:13} {bench.spread(times)} ms p50 / p95 / p99, waited for")
    peak = bench.device_memory(loaded.device)
    if peak is not None:
        typer.echo(f"device memory {peak:.0f} MB at most")
    memory = bench.resident_memory()
    if memory is not None:
        typer.echo(f"memory        {memory:.0f} MB resident at most")
