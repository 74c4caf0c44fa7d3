"""The `rollout` command of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from playhead.world.options import (
    Attention,
    Cache,
    Decoder,
    DecoderDevice,
    Device,
    Gpus,
    Precision,
    Ram,
    Vram,
)


def rollout(
    actions: Annotated[str, typer.Option(help="A script (`w*20 w+right*5 space`) or a FILE.npy.")],
    out: Annotated[
        Path, typer.Option(help="Frames .npz, film .mp4 or .gif, contact sheet .png, or a folder.")
    ],
    world: Annotated[str | None, typer.Option(help="Name or folder; else the scene's.")] = None,
    scene: Annotated[str | None, typer.Option(help="Name or folder of the start.")] = None,
    context: Annotated[Path | None, typer.Option(help="An .npz to start from instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Else the scene's, or 0.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick, else the world's.")] = None,
    device: Device = "auto",
    attention: Attention = None,
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    gpus: Gpus = None,
    decoder_device: DecoderDevice = None,
    record: Annotated[Path | None, typer.Option(help="A FILE.playhead that replays bit for bit.")] = None,
) -> None:
    """Play a script with nobody watching and keep the frames."""
    from rich.progress import track

    from playhead.controls.keymap import find_keymap
    from playhead.controls.script import load_actions
    from playhead.engine.parallel.start import load_world
    from playhead.engine.recording.recorder import Recorder
    from playhead.engine.rollout import rolling as run
    from playhead.engine.session import Session
    from playhead.engine.timeline.timeline import Timeline
    from playhead.render.export.export import ClipInfo, check_export, exporting
    from playhead.scenes.scene import check_seed, load_scene, read_context
    from playhead.world.errors import ActionError, PlayheadError, WorldError
    from playhead.world.offload.memory_budget import MemoryBudget
    from playhead.world.terminal import console

    check_export(out)
    if (scene is None) == (context is None):
        raise PlayheadError("a rollout starts from either --scene or --context: give one of them")
    start = load_scene(scene) if scene is not None else None
    budget = MemoryBudget.parse(vram, ram)
    named = world or (start.world if start is not None else "")
    if not named:
        raise PlayheadError("a rollout from a --context needs a --world")
    loaded = load_world(
        named, gpus, device, steps=steps, attention=attention,
        precision=precision, decoder=decoder, budget=budget, cache=cache, decoder_device=decoder_device,
    )  # fmt: skip
    loaded.share_cores()
    config = loaded.config
    keys = find_keymap(config.name, config.family).aliases
    held = load_actions(actions, config.action, keys)
    if not held:
        raise ActionError("--actions holds no tick; give a script such as w*20")
    if start is not None:
        past = start.context
    else:
        assert context is not None  # one of the two was given
        past = read_context(context, len(config.action.buttons))
    if seed is None:
        seed = start.seed if start else 0
    check_seed(seed, "--seed")
    try:
        session = Session(loaded, past, seed, start)
    except WorldError as error:
        raise WorldError(f"{scene or context} cannot start a session: {error}") from None
    clip = ClipInfo.of(config, held, first=0)
    timeline = Timeline(
        Recorder(record, loaded, start.title if start else "") if record is not None else None
    )
    timeline.begin(session)
    try:
        with exporting(out, clip) as write:
            count = 0
            bar = track(run(session, held, timeline), "dreaming", len(held), console=console(error=True))
            for frames in bar:
                write(frames)
                count += len(frames)
    finally:
        timeline.close()
    if timeline.failure:
        raise PlayheadError(timeline.failure)
    typer.echo(f"frames in {out}: {count}")
