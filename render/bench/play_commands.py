"""The `bench` commands of play in a window: how fast it is, two runs compared, and the way back."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from playhead.world.options import Attention, Cache, Decoder, Device, Precision, Ram, Vram
from playhead.world.terminal import plural


def bench_play(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    ticks: Annotated[int, typer.Option(help="Ticks to measure.", min=50)] = 300,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick; default: as in play.")] = None,
    device: Device = "auto",
    attention: Attention = None,
    fused: Annotated[
        bool | None,
        typer.Option(
            "--fused/--no-fused",
            help="Small operations and decodes fused, on a GPU; default: if that is faster.",
        ),
    ] = None,
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    memory: Annotated[
        int | None, typer.Option(help="Latent frames it remembers at most; default: its own.", min=1)
    ] = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Also time a tick's stages, and how steady a CPU is.")
    ] = False,
    recording: Annotated[bool, typer.Option("--recording", help="Also compare with recorded play.")] = False,
    paced: Annotated[
        bool, typer.Option("--paced", help="At the world's own pace and recorded, as `play` does it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for `bench compare`.")] = False,
) -> None:
    """Play as fast as the machine can, window and all, and print what a tick takes."""
    began = time.perf_counter()
    import msgspec

    from playhead.engine.stats import percentile
    from playhead.render.bench import flops, machine
    from playhead.render.bench import play_speed as bench
    from playhead.render.bench.figures import PlayFigures, Spread
    from playhead.render.bench.recording import bench_recording, recorded
    from playhead.render.bench.steadiness import time_products
    from playhead.scenes.scene import load_scene, scenes_of
    from playhead.world.errors import PlayheadError
    from playhead.world.low_bit import number_types
    from playhead.world.offload.memory_budget import MemoryBudget
    from playhead.world.offload.traffic import link_rate, offload_line, tick_bytes
    from playhead.world.world import World

    if recording and as_json:
        raise PlayheadError("--recording compares two ways in words: leave out --json or --recording")
    # Torch's threads belong to the one that computes, and stay as long as it does. Those of this one would be
    # idle while the loop's play, but then more threads than cores, and libgomp hardly lets any wait awake.
    with ThreadPoolExecutor(1) as loading:
        loaded = loading.submit(
            World.load,
            world,
            device,
            steps=steps,
            attention=attention,
            memory=memory,
            precision=precision,
            fused=fused,
            decoder=decoder,
            budget=MemoryBudget.parse(vram, ram),
            cache=cache,
        ).result()
        loading.submit(loaded.share_cores).result()
    start = load_scene(scene) if scene else scenes_of(loaded.config)[0]
    with recorded(loaded, start) if paced else nullcontext() as timeline:
        measured = bench.bench_play(loaded, start, ticks, began, timeline)
    products: list[float] = []
    if stages and loaded.device.type == "cpu":
        length = percentile(measured.to_frame if paced else measured.apart, 50) or 0.0
        held = sum(p.numel() * p.element_size() for p in loaded.generator.parameters())
        products = time_products(length, len(measured.apart), loaded.dtype, held)
    timed = bench.bench_stages(loaded, start, min(ticks, 20)) if stages else {}
    counted = flops.count(loaded, start) if stages else {}
    config = loaded.config
    found = PlayFigures(
        hardware=machine.hardware(loaded.device),
        world=config.name,
        width=config.frame_width,
        height=config.frame_height,
        steps=loaded.steps,
        precision=number_types(loaded.dtype, loaded.precision, loaded.cache),
        own_rate=config.ticks_per_second,
        paced=paced,
        ticks=len(measured.apart),
        rate=measured.rate,
        frames=measured.rate * config.frames_per_tick,
        tick=Spread.of(measured.apart),
        key_to_frame=Spread.of(measured.to_frame),
        key_to_screen=Spread.of(measured.to_display),
        start=measured.start,
        attention=loaded.attention,
        attention_findings=loaded.attention_findings,
        fused=loaded.fused.fused,
        fused_finding=loaded.fused.finding,
        fused_decoder=loaded.fused_decoder.fused,
        fused_decoder_finding=loaded.fused_decoder.finding,
        decoder=decoder or "",
        stages={name: Spread.of(times) for name, times in timed.items()},
        gflop={name: operations.all / 1e9 for name, operations in counted.items()},
        attention_gflop=sum(operations.attention for operations in counted.values()) / 1e9,
        tflops=machine.product_rate(loaded.device, loaded.dtype) / 1e12 if stages else None,
        attention_tflops=machine.attention_rate(loaded.device, loaded.dtype) / 1e12 if stages else None,
        products=Spread.of(products) if products else None,
        device_memory=machine.device_memory(loaded.device),
        memory=machine.resident_memory(),
        offloaded=offload_line(loaded, loaded.steps),
        moved=tick_bytes(loaded, loaded.steps),
        link=link_rate(loaded),
    )
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    for line in found.lines():
        typer.echo(line)
    if recording:
        cost = bench_recording(loaded, start, ticks)
        typer.echo(f"not recorded  {machine.spread(cost.plain)} ms p50 / p95 / p99, in turns with")
        typer.echo(f"recorded      {machine.spread(cost.recorded)} ms")
        typer.echo(f"ratio         {' / '.join(f'{cost.ratio(p):.3f}' for p in (50, 95, 99))}")
        ticks_kb, thumbnails_kb = cost.ticks_a_minute / 1e3, cost.thumbnails_a_minute / 1e3
        typer.echo(
            f"a minute      {ticks_kb:.0f} kB of actions and hashes, {thumbnails_kb:.0f} kB of thumbnails"
        )


def bench_compare(
    first: Annotated[Path, typer.Argument(help="What `bench play --json` printed.")],
    second: Annotated[Path, typer.Argument(help="What it printed another time.")],
) -> None:
    """Compare two runs of `bench play --json`: both figures, and the second over the first."""
    from rich.table import Table

    from playhead.render.bench import figures
    from playhead.world.terminal import printable, show

    table = Table("", *(printable(str(path)) for path in (first, second)), "ratio")
    for row in figures.compare(figures.read(first), figures.read(second)):
        table.add_row(*row)
    show(table)


def bench_seek(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    ticks: Annotated[int, typer.Option(help="Ticks of play to seek in.", min=50)] = 600,
    seeks: Annotated[int, typer.Option(help="How often to go somewhere.", min=5)] = 50,
    device: Device = "auto",
) -> None:
    """Play with recording, then go to random moments of that and print how long it takes."""
    from playhead.render.bench import machine
    from playhead.render.bench.recording import bench_seek as run
    from playhead.scenes.scene import load_scene, scenes_of
    from playhead.world.world import World

    loaded = World.load(world, device)
    loaded.share_cores()
    start = load_scene(scene) if scene else scenes_of(loaded.config)[0]
    found = run(loaded, start, ticks, seeks)
    typer.echo(f"hardware      {machine.hardware(loaded.device)}")
    typer.echo(f"world         {loaded.config.name}, {plural(loaded.steps, 'step')} a tick")
    longest = max(found.seeks) * 1000
    typer.echo(f"played        {ticks} ticks, {machine.spread(found.ticks)} ms p50 / p95 / p99 a tick")
    typer.echo(f"seek          {machine.spread(found.seeks)} ms, {longest:.0f} ms at most, from the disk")
    typer.echo(f"picture       {machine.spread(found.pictures)} ms, to look at a moment without going there")
    typer.echo(f"snapshots     {found.snapshot / 1e6:.2f} MB each")
    typer.echo(f"disk          {found.disk_an_hour / 1e9:.2f} GB an hour, snapshots and latents")
