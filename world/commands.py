"""The `evaluate` command of the command line."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from world.evaluation import Scores


def evaluate(
    episodes: Annotated[Path, typer.Option(help="Folder of held-out episodes (seeds from 900000 on).")],
    world: Annotated[str, typer.Option(help="World name or folder.")] = "freedoom",
    steps: Annotated[int | None, typer.Option(help="Denoise steps a tick; default: as in play.")] = None,
    ticks: Annotated[int, typer.Option(help="How far to dream.", min=64)] = 1024,
    clips: Annotated[int, typer.Option(help="Clips a place.", min=1)] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a world against real footage that it has never seen."""
    from rich.console import Console
    from rich.progress import track

    from world.evaluation import as_numbers, load_inverse
    from world.evaluation import evaluate as measure
    from world.world import World

    loaded = World.load(world, device=device, steps=steps)
    inverse = load_inverse(world, loaded.device)
    steps_of_bar = iter(track(range(ticks), "dreaming", console=Console(stderr=True)))
    scores = measure(
        loaded,
        inverse,
        episodes,
        per_place=clips,
        ticks=ticks,
        progress=lambda tick: next(steps_of_bar, None),
    )
    if as_json:
        json.dump({place: as_numbers(s) for place, s in scores.items()}, sys.stdout, indent=1)
        print()
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    for table in tables(scores, loaded.steps, inverse is not None):
        console.print(table)


def tables(scores: "dict[str, Scores]", steps: int, judged: bool) -> "list[Table]":
    """The scores as tables: PSNR by horizon, looks by tick, and action following."""
    from rich.table import Table

    overall = scores["all"]
    error = Table(title=f"PSNR in dB at {steps} steps a tick: dreamed / copy of the last real frame")
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
    buttons = Table(title="The same by button, over all places, to the first of these ticks")
    for name in overall.following_buttons:
        buttons.add_column(name, justify="right")
    buttons.add_row(*(f"{v:.2f}" for v in overall.following_buttons.values()))
    return [error, looks, following, buttons]
