"""Playhead's command line: parses, composes, nothing else."""

import contextlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Annotated


def _name_this_folder() -> None:
    """Makes the folder of this file the package `playhead`, whatever is installed under that name."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "playhead", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["playhead"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ != "playhead.main":  # run by its path, here or by a process that was spawned from there
    _name_this_folder()

try:
    import typer
    from typer.exceptions import TyperException
except ModuleNotFoundError as error:  # in a fresh checkout, by another Python than the one in .venv
    if __name__ != "__main__":
        raise
    print(
        f"playhead: {sys.executable} lacks the package {error.name}; `make play` sets up .venv with all "
        "that is needed, and from then on .venv/bin/python main.py plays",
        file=sys.stderr,
    )
    sys.exit(2)

from playhead import __version__
from playhead.engine.bridge.commands import ADDRESS, serve
from playhead.engine.bridge.commands import app as keys_app
from playhead.engine.commands import rollout
from playhead.engine.recording.commands import app as recordings_app
from playhead.engine.recording.commands import replay
from playhead.engine.session_options import NoRecord, RecordingsFolder, ServerKey
from playhead.render.bench.commands import app as bench_app
from playhead.render.demo.commands import demo
from playhead.render.evaluate.commands import evaluate, train_report
from playhead.render.export.commands import export
from playhead.render.mcp.commands import mcp
from playhead.render.web.commands import web
from playhead.scenes.commands import app as scenes_app
from playhead.scenes.worlds_commands import app as worlds_app
from playhead.world import interrupts
from playhead.world.errors import PlayheadError
from playhead.world.home import expand_arguments
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
from playhead.world.terminal import lost_output, printable, show_anything, tell
from playhead.world.training.commands import app as train_app

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
app.command()(rollout)
app.command()(replay)
app.command()(export)
app.command()(serve)
app.command()(web)
app.command()(demo)
app.command()(evaluate)
app.command()(mcp)
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.add_typer(recordings_app, name="recordings")
app.add_typer(scenes_app, name="scenes")
train_app.command("report")(train_report)
app.add_typer(train_app, name="train")
app.add_typer(worlds_app, name="worlds")

INTERRUPTED = 130
"""The exit status after Ctrl-C."""

# Commands import what they run only when they run it: `--help` answers without loading torch.

# Torch's threads would wait for each other by spinning, which makes ticks ten times slower as soon as another
# program wants the core. To wait asleep makes all ticks a quarter slower: waking takes as long as the small
# operations between two products. So they spin for a fraction of a millisecond, which is longer than most of
# those take, then sleep (libgomp; other libraries sleep). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"playhead {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell what is done, and where errors come from.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither warnings nor progress.")] = False,
) -> None:
    """Play a neural world."""
    if verbose and quiet:
        raise PlayheadError("--verbose and --quiet contradict each other; leave one out")
    tell(verbose, quiet)


@app.command()
def play(
    world: Annotated[str | None, typer.Option(help="Name or folder; else the scene's, or freedoom.")] = None,
    scene: Annotated[str | None, typer.Option(help="Name or folder; else the world's first.")] = None,
    seed: Annotated[int | None, typer.Option(help="Else the scene's.", min=0)] = None,
    steps: Annotated[str | None, typer.Option(help="Denoise steps a tick, or auto to hold the rate.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A key map; see controls/keymaps.")] = None,
    speed: Annotated[float, typer.Option(help="0.25 (slow motion) to 2.")] = 1.0,
    fullscreen: Annotated[bool, typer.Option("--fullscreen", help="Fill the screen.")] = False,
    device: Device = "auto",
    attention: Attention = None,
    precision: Precision = None,
    decoder: Decoder = None,
    cache: Cache = None,
    vram: Vram = None,
    ram: Ram = None,
    gpus: Gpus = None,
    decoder_device: DecoderDevice = None,
    hold: Annotated[bool, typer.Option("--hold", help="Stand still while nothing is held.")] = False,
    no_hud: Annotated[bool, typer.Option("--no-hud", help="Begin with the HUD hidden.")] = False,
    script: Annotated[str | None, typer.Option(help="What to hold first (`w*20`), or a FILE.npy.")] = None,
    ticks: Annotated[int | None, typer.Option(help="End after so many ticks.", min=1)] = None,
    screenshots: Annotated[Path, typer.Option(help="Folder for screenshots.")] = Path(),
    record: RecordingsFolder = None,
    no_record: NoRecord = False,
    continued: Annotated[
        str, typer.Option("--continue", help="Go on with a recording: FILE, FILE@TICK, FILE@BOOKMARK.")
    ] = "",
    connect: Annotated[str | None, typer.Option(help="Play on a server: tcp://HOST:PORT.")] = None,
    bridge: Annotated[bool, typer.Option("--bridge", help="Let programs watch and play along.")] = False,
    bind: Annotated[str, typer.Option(help="Where --bridge listens; port * takes a free one.")] = ADDRESS,
    clients: Annotated[Path | None, typer.Option(help="Folder of the programs' public keys.")] = None,
    key: Annotated[Path | None, typer.Option(help="Your .key_secret: the server's with --bridge.")] = None,
    server_key: ServerKey = None,
    codec: Annotated[str, typer.Option(help="How a server sends frames: h264, jpeg or raw.")] = "h264",
) -> None:
    """Play a world in a window."""
    from playhead.render.window import settings
    from playhead.render.window.play import play as run
    from playhead.world.home import NoHome, recordings_folder
    from playhead.world.offload.memory_budget import MemoryBudget

    if continued and (scene is not None or seed is not None or no_record or record is not None):
        raise PlayheadError("--continue has its scene, seed and file already; leave the other option out")
    if record is not None and no_record:
        raise PlayheadError("--record and --no-record contradict each other; leave one out")
    if bridge and connect is not None:
        raise PlayheadError("--bridge offers a session of this window, and --connect has none; leave one out")
    if connect is not None and (continued or record is not None):
        raise PlayheadError("recordings are of sessions that are played here; leave them out with --connect")
    count, auto_steps = settings.parse_steps(steps)
    budget = MemoryBudget.parse(vram, ram)
    folder, unrecorded = record, ""
    if record is None and not no_record and connect is None:
        try:
            folder = recordings_folder()
        except NoHome as error:
            unrecorded = str(error)
    session = settings.SessionSettings(
        world,
        scene,
        seed,
        count,
        device,
        attention,
        script,
        continued,
        precision=precision,
        decoder=decoder,
        budget=budget,
        cache=cache,
        gpus=gpus,
        decoder_device=decoder_device,
    )
    run(
        settings.PlaySettings(
            session,
            settings.PaceSettings(speed, auto_steps, hold, ticks),
            settings.RecordingSettings(folder, unrecorded),
            settings.WindowSettings(keys, fullscreen, not no_hud, screenshots),
            settings.BridgeSettings(bind, key, clients) if bridge else None,
            settings.ServerSettings(connect, key, server_key, codec) if connect is not None else None,
        )
    )


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what was found on this machine, and what is missing for what."""
    from dataclasses import asdict

    from rich.table import Table

    from playhead.engine.doctor import examine
    from playhead.world.terminal import show, show_json

    findings = examine()
    if as_json:
        show_json([asdict(finding) for finding in findings])
        return
    table = Table("part", "found", "lacks")
    for finding in findings:
        table.add_row(finding.part, finding.found or "nothing", finding.lack)
    show(table)


LONGEST = 10_000
"""Characters of an error that are shown."""
_LOST = "playhead: the output cannot be written ({}); send it elsewhere"


def main() -> None:
    """Runs a command; bad input ends in one sentence and status 2, an interruption in status 130.

    One by SIGTERM or SIGHUP ends in status 143 or 129.
    """
    show_anything()
    with interrupts.as_interrupts():
        interrupts.leave(_run())


def _run() -> int:
    """Runs a command. Returns the exit status."""
    try:
        sys.argv[1:] = expand_arguments(sys.argv[1:])
        status = app(standalone_mode=False) or 0
        if status == INTERRUPTED:  # which typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        if not (lost := lost_output()):
            return status
        print(_LOST.format(lost), file=sys.stderr)
    except PlayheadError as error:
        logging.getLogger("playhead").debug("where the error comes from:", exc_info=True)
        # What it names came from outside, a file or a command line: a terminal is not to obey it.
        print(f"playhead: {printable(str(error), LONGEST)}", file=sys.stderr)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        sentence = " ".join(error.format_message().split()).rstrip(".")
        if sentence:  # none where a group was called without a command: its help is printed already
            where = context.command_path if context is not None else "playhead"
            print(f"playhead: {printable(sentence, LONGEST)}; see {where} --help", file=sys.stderr)
    except OSError:
        if not (lost := lost_output(try_again=True)):
            raise
        print(_LOST.format(lost), file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            print("playhead: interrupted; what was finished is kept", file=sys.stderr)
        return interrupts.status()
    return 2


if __name__ == "__main__":
    main()
