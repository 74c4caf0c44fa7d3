"""The plots of a training run, drawn from its `metrics.jsonl` with what draws the window."""

import json
import math
from pathlib import Path

import numpy as np
import pygame

from playhead.render.export.sheet import write_png
from playhead.world.errors import PlayheadError

WIDTH, HEIGHT, MARGIN = 640, 260, 48
INK, FAINT, PAPER, LINE = (225, 225, 225), (70, 70, 78), (24, 24, 28), (110, 190, 255)


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
    """Draws each metric against the steps into `run/report/NAME.png`; returns the files."""
    rows = read_metrics(run)
    names = sorted({name for row in rows for name in row} - {"step", "seconds"})
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    files = []
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        files.append(folder / f"{name}.png")
        write_png(files[-1], plot(f"{run.name}: {name}", points))
    return files


def plot(title: str, points: list[tuple[float, float]]) -> np.ndarray:
    """A curve with the smallest and largest values of both axes, uint8 `(HEIGHT, WIDTH, 3)`.

    Values are on a logarithmic axis where all are above 0 and span more than a factor of ten.
    """
    surface = pygame.Surface((WIDTH, HEIGHT))
    surface.fill(PAPER)
    pygame.font.init()
    font = pygame.font.Font(None, 18)
    steps, values = zip(*points, strict=True)
    logarithmic = min(values) > 0 and max(values) / min(values) > 10
    scaled = [math.log(v) for v in values] if logarithmic else list(values)
    left, right, top, bottom = MARGIN + 20, WIDTH - 16, 30, HEIGHT - 30

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - steps[0]) / max(steps[-1] - steps[0], 1)
        up = (y - min(scaled)) / ((max(scaled) - min(scaled)) or 1)
        return left + across * (right - left), bottom - up * (bottom - top)

    for i in range(5):
        y = top + i * (bottom - top) / 4
        pygame.draw.line(surface, FAINT, (left, y), (right, y))
        level = max(scaled) - i * (max(scaled) - min(scaled)) / 4
        shown = f"{math.exp(level) if logarithmic else level:.3g}"
        surface.blit(font.render(shown, True, INK), (6, y - 6))
    curve = [at(x, y) for x, y in zip(steps, scaled, strict=True)]
    if len(curve) > 1:
        pygame.draw.aalines(surface, LINE, False, curve)
    for point in curve if len(curve) < 40 else ():
        pygame.draw.circle(surface, LINE, point, 2)
    surface.blit(font.render(title + (" (logarithmic)" if logarithmic else ""), True, INK), (left, 8))
    surface.blit(font.render(f"step {steps[0]:g}", True, INK), (left, bottom + 8))
    last = font.render(f"{steps[-1]:g}", True, INK)
    surface.blit(last, (right - last.get_width(), bottom + 8))
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)
