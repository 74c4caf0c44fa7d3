"""`train report` draws what a run has written, and `bench batch` measures what it says."""

import json
import sys
from pathlib import Path

import pytest

from playhead.main import main
from playhead.render.bench.batch import bench_batch
from playhead.render.evaluate.report import plot


def test_a_curve_has_every_point_and_a_logarithmic_axis_where_values_span_much() -> None:
    points = [(step, 100.0 - step) for step in range(0, 100, 2)]
    (axes,) = plot("loss", points).axes
    (line,) = axes.lines
    assert list(zip(*line.get_data(), strict=True)) == points
    assert axes.get_title() == "loss" and axes.get_yscale() == "log"
    (axes,) = plot("gradient", [(1, -1.0), (2, 30.0)]).axes
    assert axes.get_yscale() == "linear"


def run_main(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_every_metric_gets_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    rows = [{"step": i, "seconds": 10 * i, "loss": 1 / i, "gradient": 2.0} for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_main(["train", "report", str(tmp_path)], monkeypatch) == 0
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"loss.png", "gradient.png"}


def test_no_run_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    assert run_main(["train", "report", str(tmp_path / "none")], monkeypatch) == 2
    assert "give the folder of a training run" in capfd.readouterr().err


def test_batches_are_measured_one_after_the_other(tiny_world) -> None:
    one, three = bench_batch(tiny_world, [1, 3], 5)
    assert (one.sessions, three.sessions) == (1, 3)
    assert len(three.ticks) == 5 and three.rate == pytest.approx(15_000 / sum(three.ticks))
    assert three.percentile(0.5) <= three.percentile(0.99)
