"""The `evaluate` command of the command line."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from playhead.world.terminal import plural

if TYPE_CHECKING:
    from rich.table import Table

    from playhead.world.evaluation import Scores

AT_ONCE = 12
"""Evaluations side by side on a GPU."""


def evaluate(
    episodes: Annotated[
        Path,
        typer.Option(
            help="Folder of held-out episodes (seeds from 900000 on), or of `train there-and-back`: then how "
            "well the world remembers what it showed."
        ),
    ],
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick; default: as in play.")] = None,
    ticks: Annotated[int, typer.Option(help="How far to dream; ten minutes: 10500.", min=64)] = 1024,
    clips: Annotated[int, typer.Option(help="Clips a place.", min=1)] = 4,
    player: Annotated[str, typer.Option(help="Beyond the clip: footage, idle, wander or spin.")] = "footage",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a contact sheet, a time-lapse and a checkpoint to go on from."),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="A training run's folder; repeat it: one table of all, at --steps or 1, 2, 4."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    attention: Annotated[
        str | None, typer.Option(help="A backend, say a sparse one; default: the fastest right one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a world against real footage that it has never seen, or compare training runs."""
    from playhead.render.evaluate import excursions
    from playhead.world.errors import PlayheadError
    from playhead.world.evaluation import PLAYERS, as_numbers
    from playhead.world.returning import as_row, has_excursions
    from playhead.world.terminal import show
    from playhead.world.world_folders import find_world

    if player not in PLAYERS:
        raise PlayheadError(f"there is no player `{player}`; choose among {', '.join(PLAYERS)}")
    if has_excursions(episodes):
        if compare or out:
            raise PlayheadError(
                f"{episodes} holds episodes of `train there-and-back`, on which a world is measured without "
                "--compare and --out; leave those out"
            )
        results = excursions.measure(world, episodes, clips, steps, device, attention)
        if as_json:
            json.dump([as_row(result) for result in results], sys.stdout, indent=1)
            print()
        else:
            show(excursions.table(results))
        return
    if compare:
        rows = []
        jobs = _jobs(compare, steps, out)
        for job, scores in _measured(jobs, episodes, ticks, clips, player, device, attention):
            run = {"run": job.run.name, "steps": job.steps, "minutes": minutes(job.run)}
            rows.append({**run, **as_numbers(scores["all"])})
        if as_json:
            json.dump(rows, sys.stdout, indent=1)
            print()
        else:
            show(comparison(rows))
        return
    only = [Job(Path(world), find_world(world), steps, out)]
    ((job, scores),) = _measured(only, episodes, ticks, clips, player, device, attention)
    if as_json:
        json.dump({place: as_numbers(s) for place, s in scores.items()}, sys.stdout, indent=1)
        print()
        return
    assert job.steps is not None  # `_measured` has filled it in
    for table in tables(scores, job.steps, not math.isnan(scores["all"].following_real)):
        show(table)


@dataclass
class Job:
    """A world to be measured: of a training run or of its own, in its `folder`. Pictures go into `out`."""

    run: Path
    folder: Path
    steps: int | None
    out: Path | None


def _jobs(runs: list[Path], steps: int | None, out: Path | None) -> list[Job]:
    """One a run and number of steps. A run is its folder, with the world in `world`; or a world's own."""
    return [
        Job(
            run,
            run / "world" if (run / "world").is_dir() else run,
            count,
            out and out / f"{run.name}-{count}",
        )
        for run in runs
        for count in ((1, 2, 4) if steps is None else (steps,))
    ]


def _measured(
    jobs: list[Job], episodes: Path, ticks: int, clips: int, player: str, device: str, attention: str | None
) -> "Iterator[tuple[Job, dict[str, Scores]]]":
    """Each job with its scores by place; a job without steps is given those of play.

    On a GPU several go side by side: their passes share it, and it draws their noise.
    """
    from rich.markup import escape
    from rich.progress import Progress, TaskID

    from playhead.world import acceleration
    from playhead.world.clips import Clip, cut_clips
    from playhead.world.evaluation import Evaluation, in_turns, load_inverse, prepare
    from playhead.world.noise import DeviceNoise
    from playhead.world.terminal import console
    from playhead.world.world import World

    at_once = AT_ONCE if acceleration.pick_device(device).type == "cuda" else 1
    cut: list[Clip] = []
    for first in range(0, len(jobs), at_once):
        group = jobs[first : first + at_once]
        bar = Progress(console=console(error=True))
        evaluations: list[Evaluation] = []
        works = []
        for job in group:
            world = World.load(job.folder, device=device, steps=job.steps, attention=attention)
            job.steps = world.steps
            if world.device.type == "cuda":
                world.noises = DeviceNoise(world.device)
            inverse = load_inverse(job.folder, world.device)
            cut = cut or cut_clips(episodes, clips)  # once: worlds that are compared are measured on the same
            evaluation = prepare(world, inverse, episodes, cut, player)
            watch = saved = None
            if job.out is not None:
                from playhead.render.evaluate.album import Album

                album = Album(job.out, evaluation.clips, ticks)
                watch = album.watch
                if not album.films:
                    bar.console.print("there will be no time-lapse: PyAV is missing (pip install av)")
                saved = job.out / "evaluation.pt"
            works.append(evaluation.each_tick(ticks, watch, saved))
            evaluations.append(evaluation)
            bar.add_task(escape(f"{job.run.name}, {plural(job.steps, 'step')}"), total=ticks)
        try:
            for number, tick in in_turns(works, evaluations[0].world.device):
                bar.start()  # with the first tick: what cannot be measured has said so by then
                bar.update(TaskID(number), completed=tick)
        finally:
            if bar.live.is_started:
                bar.stop()
        yield from zip(group, (evaluation.result() for evaluation in evaluations), strict=True)


def minutes(run: Path) -> float | None:
    """How long a run has trained, by its own record; None where it has none."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        return None
    lines = file.read_text("utf-8").splitlines()
    return round(json.loads(lines[-1])["seconds"] / 60, 1) if lines else None


def comparison(rows: list[dict[str, Any]]) -> "Table":
    """One table of runs and steps; what serves as a measure of them stands below."""
    from rich.table import Table

    first = rows[0]
    seen = {int(t) for row in rows for t in row["sharpness"]}  # some rows may have gone further than others
    far, looks = (1, 8, 16, 32), [str(t) for t in sorted(seen) if t >= 64]
    table = Table(title="Runs compared; PSNR in dB, sharpness as a ratio to real footage")
    for name in ("run", "steps", "minutes", *(f"+{h}" for h in far)):
        table.add_column(name, justify="right")
    for tick in looks:
        table.add_column(f"tick {tick}: sharp / colour / following / Fréchet", justify="right")

    def show(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for row in rows:
        cells = [
            " / ".join(
                [
                    show(row["sharpness"].get(tick), ".2f"),
                    show(row["colour"].get(tick), ".1%"),
                    show(row["following"].get(tick), ".2f"),
                    show(row["frechet"].get(tick), ".2f"),
                ]
            )
            for tick in looks
        ]
        errors = [show(row["dreamed"].get(str(h)), ".1f") for h in far]
        table.add_row(row["run"], str(row["steps"]), show(row["minutes"], ".1f"), *errors, *cells)
    table.add_section()
    copies = [show(first["copied"].get(str(h)), ".1f") for h in far]
    real = f"1.00 / 0.0% / {show(first['following_real'], '.2f')} / {show(first['frechet_real'], '.2f')}"
    table.add_row("copy of the last frame; real against real", "", "", *copies, *[real] * len(looks))
    ceiling = show(first["ceiling"], ".1f")
    decoder = f"Fréchet {show(first['frechet_ceiling'], '.2f')}"
    table.add_row("the decoder's ceiling", "", "", *[ceiling] * len(far), *[decoder] * len(looks))
    return table


def tables(scores: "dict[str, Scores]", steps: int, judged: bool) -> "list[Table]":
    """The scores as tables: PSNR by horizon, looks by tick, and action following."""
    from rich.table import Table

    overall = scores["all"]
    error = Table(
        title=f"PSNR in dB at {plural(steps, 'step')} a tick: dreamed / copy of the last real frame"
    )
    for name in ("place", "clips", "ceiling", *(f"+{h}" for h in overall.dreamed)):
        error.add_column(name, justify="right")
    looks = Table(title="Against real footage: sharpness ratio / colour distance / contrast ratio")
    for name in ("place", *(f"tick {t}" for t in overall.sharpness)):
        looks.add_column(name, justify="right")
    for place, s in scores.items():
        pairs = (f"{v:.1f} / {s.copied[h]:.1f}" for h, v in s.dreamed.items())
        error.add_row(place, str(s.clips), f"{s.ceiling:.1f}", *pairs)
        looks.add_row(
            place, *(f"{v:.2f} / {s.colour[t]:.1%} / {s.contrast[t]:.2f}" for t, v in s.sharpness.items())
        )
    if not judged:
        return [error, looks]
    following = Table(title="Action following: mean F1 of the buttons that the inverse-dynamics model sees")
    for name in ("place", "real footage", *(f"to tick {t}" for t in overall.following)):
        following.add_column(name, justify="right")
    for place, s in scores.items():
        following.add_row(place, f"{s.following_real:.2f}", *(f"{v:.2f}" for v in s.following.values()))
    apart = Table(title="Fréchet distance of what that model sees to what it sees in real footage")
    for name in ("place", "real against real", "decoder", *(f"tick {t}" for t in overall.frechet)):
        apart.add_column(name, justify="right")
    for place, s in scores.items():
        apart.add_row(
            place,
            f"{s.frechet_real:.2f}",
            f"{s.frechet_ceiling:.2f}",
            *(f"{v:.2f}" for v in s.frechet.values()),
        )
    buttons = Table(title="Action following by button, over all places, to the first of those ticks")
    for name in overall.following_buttons:
        buttons.add_column(name, justify="right")
    buttons.add_row(*(f"{v:.2f}" for v in overall.following_buttons.values()))
    return [error, looks, following, buttons, apart]


def train_report(run: Annotated[Path, typer.Argument(help="Folder of a training run.")]) -> None:
    """Draw a run's metrics, a PNG each, into its folder."""
    from playhead.render.evaluate.report import report

    for file in report(run):
        typer.echo(str(file))
