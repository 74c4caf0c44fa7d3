"""The `bench` commands of a world's parts: its attention, its layers in low bit, its decoders."""

from typing import Annotated

import typer

from playhead.world.options import Device
from playhead.world.terminal import plural


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
