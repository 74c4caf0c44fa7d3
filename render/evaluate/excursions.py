"""What `evaluate` does with episodes that end where they began."""

from pathlib import Path
from typing import TYPE_CHECKING

from playhead.world.terminal import plural

if TYPE_CHECKING:
    from rich.table import Table

    from playhead.world.returning import ReturnScores


def measure(
    world: str, episodes: Path, clips: int, steps: int | None, device: str, attention: str | None = None
) -> "list[ReturnScores]":
    """How well a world returns, under a progress bar. Raises PlayheadError for unusable episodes."""
    from rich.progress import Progress

    from playhead.world.config import load_config
    from playhead.world.memory import cut_memory
    from playhead.world.noise import DeviceNoise
    from playhead.world.returning import MEMORY, ReturnEvaluation, read_excursions
    from playhead.world.terminal import console
    from playhead.world.world import World
    from playhead.world.world_folders import find_world

    more = cut_memory(load_config(find_world(world) / "world.toml"), MEMORY) is not None
    worlds = [
        World.load(world, device, steps=steps, memory=memory, attention=attention)
        for memory in (None, MEMORY)[: 1 + more]
    ]
    for loaded in worlds:
        if loaded.device.type == "cuda":
            loaded.noises = DeviceNoise(loaded.device)
    whole = worlds[0]
    returning = ReturnEvaluation(whole, worlds[1] if more else None, read_excursions(whole, episodes, clips))
    with Progress(console=console(error=True)) as bar:
        task = bar.add_task(f"there and back, {plural(whole.steps, 'step')}", total=returning.ticks)
        return returning.run(lambda done: bar.update(task, completed=done))


def table(results: "list[ReturnScores]") -> "Table":
    """One row an excursion and its number of ticks."""
    from rich.table import Table

    from playhead.world.returning import MEMORY

    shown = Table(title="There and back: PSNR in dB of what is seen after an excursion against before")
    for name in ("excursion", "ticks", "clips", "dreamed", f"with {MEMORY} frames of memory"):
        shown.add_column(name, justify="right")
    for name in ("the real game", "the real game, encoded and decoded"):
        shown.add_column(name, justify="right")
    for r in results:
        cut = "no more than that" if r.cut is None else f"{r.cut:.1f}"
        figures = (f"{r.dreamed:.1f}", cut, f"{r.real:.1f}", f"{r.cap:.1f}")
        shown.add_row(r.excursion, str(r.ticks), str(r.clips), *figures)
    return shown
