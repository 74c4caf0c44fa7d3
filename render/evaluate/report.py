"""The plots of a training run, drawn from its `metrics.jsonl` by matplotlib (extra `train`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from playhead.world.errors import PlayheadError
from playhead.world.extras import install

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics. Raises PlayheadError where there are none."""
    path = run / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, json.JSONDecodeError) as error:
        raise PlayheadError(
            f"{path} cannot be read ({type(error).__name__}); give the folder of a training run"
        ) from None
    if not rows:
        raise PlayheadError(f"{path} is empty so far; a run writes to it every ten seconds")
    return rows


def report(run: Path) -> list[Path]:
    """Draws each metric against the steps into `run/report/NAME.png`; returns the files.

    Raises PlayheadError where there are no metrics, or no matplotlib.
    """
    rows = read_metrics(run)
    names = sorted({name for row in rows for name in row} - {"step", "seconds"})
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    files = []
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        files.append(folder / f"{name}.png")
        plot(f"{run.name}: {name}", points).savefig(files[-1])
    return files


def plot(title: str, points: Sequence[tuple[float, float]]) -> "Figure":
    """A curve of values against steps.

    Values are on a logarithmic axis where all are above 0 and span more than a factor of ten.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot, which would look for a display
    except ImportError:
        raise PlayheadError(f"plots need matplotlib: {install('train')}") from None
    figure = Figure((6.4, 2.8), layout="constrained")
    axes = figure.add_subplot()
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, marker="." if len(points) < 40 else "")
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    return figure
