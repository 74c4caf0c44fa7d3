"""The `bench` commands of the command line."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from playhead.world.options import Attention, Cache, Decoder, Device, Precision, Ram, Vram
from playhead.world.terminal import plural

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
    device: Device = "auto",
    attention: Attention = None,
    fused: Annotated[
        bool | None,
        typer.Option(
            "--fused/--no-fused", help="Small operations fused, on a GPU; default: if that is faster."
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
    stages: Annotated[bool, typer.Option("--stages", help="Also time a tick's stages apart.")] = False,
    recording: Annotated[bool, typer.Option("--recording", help="Also compare with recorded play.")] = False,
    paced: Annotated[
        bool, typer.Option("--paced", help="At the world's own pace and recorded, as `play` does it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for `bench compare`.")] = False,
) -> None:
    """Play as fast as the machine can, window and all, and print what a tick takes."""
    began = time.perf_counter()
    import msgspec

    from playhead.render.bench import flops, machine
    from playhead.render.bench import play_speed as bench
    from playhead.render.bench.figures import PlayFigures, Spread
    from playhead.render.bench.recording import bench_recording, recorded
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
        decoder=decoder or "",
        stages={name: Spread.of(times) for name, times in timed.items()},
        gflop={name: operations.all / 1e9 for name, operations in counted.items()},
        attention_gflop=sum(operations.attention for operations in counted.values()) / 1e9,
        tflops=machine.product_rate(loaded.device, loaded.dtype) / 1e12 if stages else None,
        attention_tflops=machine.attention_rate(loaded.device, loaded.dtype) / 1e12 if stages else None,
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


@app.command("compare")
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


@app.command("seek")
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


@app.command("attention")
def bench_attention(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    device: Device = "auto",
    played: Annotated[
        int, typer.Option(help="Ticks of play to hold the sparse ones to dense on, with the weights.", min=0)
    ] = 0,
) -> None:
    """Compare every attention backend with float32 at a world's shapes, without its weights, and time it.

    A sparse one is compared under its own mask; its distance from dense is that of random numbers, and with
    --played that of the world's own layers.
    """
    from playhead.render.bench import machine
    from playhead.world import acceleration, attention_check
    from playhead.world.attention import BACKENDS, FLEX
    from playhead.world.config import load_config
    from playhead.world.sparse_attention import SPARSE
    from playhead.world.world_folders import find_world

    config = load_config(find_world(world) / "world.toml")
    target = acceleration.pick_device(device)
    dtype = acceleration.pick_dtype(target)
    patches = config.latent.height * config.latent.width // config.generator.patch**2
    heads, queries, keys, size = attention_check.shapes(config, patches)
    typer.echo(f"hardware      {machine.hardware(target)}")
    typer.echo(
        f"world         {config.name}, {heads} heads of {size}, {queries} queries, {keys} keys, "
        f"{str(dtype).removeprefix('torch.')}"
    )
    backends = (*BACKENDS, FLEX, *SPARSE) if target.type == "cuda" else (*BACKENDS, *SPARSE)
    findings = attention_check.examine(config, patches, target, dtype, backends)
    dense = min((f.seconds for f in findings if f.backend not in SPARSE), default=float("inf"))
    for finding in findings:
        sparse = finding.backend in SPARSE
        kind = "unusable" if finding.reason else "refused" if not finding.right else "right"
        speed = f", {dense / finding.seconds:.2f} x the fastest dense" if sparse and finding.right else ""
        typer.echo(f"{'sparse' if sparse and finding.right else kind:13} {finding}{speed}")
    if played:
        from playhead.render.bench.sparse_error import played_errors
        from playhead.scenes.scene import scenes_of
        from playhead.world.world import World

        loaded = World.load(world, device)
        start = scenes_of(loaded.config)[0]
        loaded.share_cores()
        for backend, (lost, furthest) in played_errors(loaded, start, played, SPARSE).items():
            where = f"from dense over {plural(played, 'tick')} of {start.name} (relative L1)"
            typer.echo(f"{'played':13} {backend}: {lost:.3f} {where}, {furthest:.3f} in its furthest layer")


@app.command("precision")
def bench_precision(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    precision: Annotated[
        str | None, typer.Option(help="fp8, int8 or nvfp4; default: fp8, or full with --cache.")
    ] = None,
    cache: Annotated[str | None, typer.Option(help="fp8 for the cache.")] = None,
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    ticks: Annotated[int, typer.Option(help="Ticks to compare, and then to time.", min=1)] = 8,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a world in low bit, its layers or its cache, with the same in full: errors, frames, memory."""
    import msgspec

    from playhead.render.bench.precision import bench_precision as run
    from playhead.scenes.scene import load_scene, scenes_of
    from playhead.world.acceleration import pick_device
    from playhead.world.config import load_config
    from playhead.world.low_bit import check_precision
    from playhead.world.low_bit_cache import check_cache
    from playhead.world.world_folders import find_world

    if precision is None and cache is None:
        precision = "fp8"
    check_precision(precision, pick_device(device))
    config = load_config(find_world(world) / "world.toml")
    check_cache(cache)
    start = load_scene(scene) if scene else scenes_of(config)[0]
    found = run(world, device, precision, ticks, start, cache)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    for line in found.lines():
        typer.echo(line)


@app.command("decode")
def bench_decode(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    ticks: Annotated[int, typer.Option(help="Ticks to measure.", min=1)] = 50,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decode the same latents by each of a world's decoders: time, memory, PSNR against its full Wan VAE."""
    import msgspec

    from playhead.render.bench.decode import bench_decode as run
    from playhead.render.bench.decode import is_random
    from playhead.scenes.scene import load_scene, scenes_of
    from playhead.world.config import load_config
    from playhead.world.world_folders import find_world

    config = load_config(find_world(world) / "world.toml")
    start = None
    if scene or not is_random(config):  # else what is dreamed is noise too
        start = load_scene(scene) if scene else scenes_of(config)[0]
    found = run(world, device, ticks, start)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    for line in found.lines():
        typer.echo(line)


@app.command("batch")
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


@app.command("web")
def bench_web(
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    scene: Annotated[str | None, typer.Option(help="Scene; else the world's first.")] = None,
    presses: Annotated[int, typer.Option(help="Times that a key is pressed for each encoding.", min=5)] = 100,
    ticks: Annotated[int, typer.Option(help="Live ticks for each number of watchers.", min=20)] = 240,
    watchers: Annotated[int, typer.Option(help="Pages that watch beside none.", min=1, max=64)] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
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


@app.command("bridge")
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


@app.command("serve")
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
