"""A training run: a folder with metrics and a checkpoint; it shows progress, can be interrupted, and resumes.

`Run.loop` yields step after step until `steps` are done or `minutes` are over, whichever comes first;
training code asks it for the learning rate and gives it the losses.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from playhead.world import interrupts
from playhead.world.errors import PlayheadError
from playhead.world.terminal import console
from playhead.world.training import distributed


def trapezoid(progress: float, warm_up: float = 0.01, decay: float = 0.4) -> float:
    """A learning-rate factor: up, flat, then down to 0 over the last `decay` of the run."""
    return max(0.0, min(1.0, progress / warm_up + 1e-3, (1 - progress) / decay))


class Run:
    """One run in `folder`. `steps` or `minutes` (or both) bound it, counted over all its resumptions."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        save_every: float = 60.0,
        report_every: float = 10.0,
    ) -> None:
        if steps is None and minutes is None:
            raise PlayheadError("a run needs an end: give --steps or --minutes")
        self.folder, self.steps, self.minutes = folder, steps, minutes
        self.save_every, self.report_every = save_every, report_every
        self.step, self.seconds = 0, 0.0
        self.rank, self.world_size = distributed.start()
        self._interrupted = False
        self._losses: dict[str, tuple[Tensor, int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlayheadError(
                f"the folder {folder} cannot be made ({error.strerror}); use another --out"
            ) from None

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        by_steps = self.step / self.steps if self.steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def resume(self, load: Callable[[dict[str, Any]], None]) -> None:
        """Hands the folder's checkpoint, if there is one, to `load`."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.step, self.seconds = state["step"], state["seconds"]
            load(state)
        except Exception as error:  # torch raises a dozen kinds for a damaged file or one of other settings
            raise PlayheadError(
                f"{path} cannot be resumed ({type(error).__name__}): it is damaged or of other settings; "
                "delete it or use another --out"
            ) from None

    def save(self, state: dict[str, Any]) -> None:
        """Writes the checkpoint, whole or not at all."""
        if self.rank:
            return
        temporary = self.folder / "checkpoint.tmp"
        torch.save({**state, "step": self.step, "seconds": self.seconds}, temporary)
        temporary.replace(self.folder / "checkpoint.pt")

    def log(self, **losses: Tensor) -> None:
        """Adds to the means that are written at the next report; costs no synchronisation."""
        for name, value in losses.items():
            total, count = self._losses.get(name, (0.0, 0))
            self._losses[name] = (total + value.detach().float(), count + 1)

    def report(self) -> dict[str, float]:
        """Writes the means since the last report, where there are any, to metrics.jsonl.

        Raises PlayheadError where one is no number any more: the checkpoint then keeps what was before.
        """
        means = {name: float(total) / count for name, (total, count) in self._losses.items()}
        self._losses = {}
        lost = [name for name, value in means.items() if not math.isfinite(value)]
        if lost:
            raise PlayheadError(
                f"the run in {self.folder} has diverged before step {self.step} ({lost[0]} is no number); "
                "go on from its last checkpoint with a lower learning rate"
            )
        row = {"step": self.step, "seconds": round(self.seconds, 1), **means}
        if self.rank == 0 and means:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
        return row

    def loop(self, title: str, save: Callable[[], dict[str, Any]], device: torch.device) -> Iterator[int]:
        """Yields step numbers; saves every minute, at the end, and when interrupted (then raises)."""
        with self._catch_signals(), _progress(self.rank) as bar:
            task = bar.add_task(title, total=1.0, completed=self.progress, note="")
            clock = time.monotonic()
            saved = reported = self.seconds
            while self.progress < 1:
                yield self.step
                self.step += 1
                stop = False
                # The clock decides how far a run is, so all processes have to read the same one: they
                # agree on it, and on whether to stop, every ten steps.
                if self.world_size == 1 or self.step % 10 == 0:
                    now = time.monotonic()
                    seconds = self.seconds + now - clock
                    self.seconds, vote = distributed.highest([seconds, float(self._interrupted)], device)
                    clock, stop = now, vote > 0
                if self.seconds - reported > self.report_every:
                    reported = self.seconds
                    row = self.report()
                    note = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "seconds")
                    bar.update(task, note=note)
                    if self.rank == 0 and not bar.console.is_terminal:
                        print(f"{title}: {self.progress:.0%} {row['seconds']:.0f} s  {note}", flush=True)
                bar.update(task, completed=self.progress)
                if stop or self.seconds - saved > self.save_every:
                    saved = self.seconds
                    self.report()
                    self.save(save())
                if stop:
                    raise KeyboardInterrupt
        self.report()
        self.save(save())

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        def note(number: int, frame: object) -> None:
            interrupts.note(number)
            self._interrupted = True

        held = {number: signal.signal(number, note) for number in interrupts.ending()}
        try:
            yield
        finally:
            for number, handler in held.items():
                signal.signal(number, handler)


def _progress(rank: int) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console(error=True),
        disable=rank > 0,
    )
