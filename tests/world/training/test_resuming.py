"""A run of training goes on exactly where it was interrupted."""

import signal
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from playhead.world.checkpoint import read_weights
from playhead.world.training.footage import Footage
from playhead.world.training.run import Run
from tests.world.training.runs import metrics, read_checkpoint, same
from tests.world.training.stages import STAGES, Stage, Watched, autoencoder, generator

STEPS, STOP = 14, 6
every_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


@every_stage
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    stage: Stage, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    """Interrupted and resumed, or in one go: the same weights and optimizers, bit for bit."""
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    stage(Watched(straight, STEPS), footage, latents)
    with pytest.raises(KeyboardInterrupt):
        stage(Watched(halves, STEPS, stop=STOP), footage, latents)
    assert read_checkpoint(halves)["step"] == STOP
    again = Watched(halves, STEPS)
    stage(again, footage, latents)
    assert again.seen == set(range(STOP, STEPS))
    assert same(read_checkpoint(straight), read_checkpoint(halves))
    (one,), (other,) = (folder.glob("*.safetensors") for folder in (straight, halves))
    assert one.read_bytes() == other.read_bytes()


def test_a_run_goes_on_with_less_footage_than_it_began_with(
    footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    """As after filming: the batch that it was interrupted in is not there any more, the next one is."""
    with pytest.raises(KeyboardInterrupt):
        generator(Watched(tmp_path, STEPS, stop=STOP), footage, latents)
    kept = read_checkpoint(tmp_path)
    assert len(kept["found"]) and kept["clips"].max() >= 24
    less = Footage(footage.frames[:24], footage.actions[:24], [0], footage.places[:1])
    again = Watched(tmp_path, STEPS)
    generator(again, less, latents[:24])
    assert again.seen == set(range(STOP, STEPS))


@every_stage
def test_an_interrupted_run_leaves_the_weights_and_metrics_up_to_there(
    stage: Stage, footage: Footage, latents: Tensor, tmp_path: Path
) -> None:
    run = Watched(tmp_path, STEPS, stop=STOP)
    with pytest.raises(KeyboardInterrupt):
        stage(run, footage, latents)
    (weights,) = tmp_path.glob("*.safetensors")
    assert read_weights(weights)
    (row,) = metrics(tmp_path)
    assert row["step"] == STOP
    for name, values in run.losses.items():
        assert row[name] == pytest.approx(sum(values) / len(values), rel=1e-3, abs=1e-6)
    files = {path.suffix for path in tmp_path.iterdir() if path.is_file()}
    assert files == {".safetensors", ".pt", ".jsonl"}  # and nothing half written


def test_signals_are_the_callers_again_after_a_run(footage: Footage, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    autoencoder(Watched(tmp_path, 2), footage)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(Watched(tmp_path, 4, stop=3), footage)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_finished_run_stays_as_it_is(footage: Footage, tmp_path: Path) -> None:
    first = autoencoder(Watched(tmp_path, 3), footage)
    again = Watched(tmp_path, 3)
    assert same(first.state_dict(), autoencoder(again, footage).state_dict())
    assert not again.seen
    assert len(metrics(tmp_path)) == 1


def test_a_finished_run_can_be_lengthened(footage: Footage, tmp_path: Path) -> None:
    autoencoder(Watched(tmp_path, 3), footage)
    longer = Watched(tmp_path, 8)
    autoencoder(longer, footage)
    assert longer.seen == {3, 4, 5, 6, 7}
    assert [row["step"] for row in metrics(tmp_path)] == [3, 8]
    assert all(np.isfinite(list(row.values())).all() for row in metrics(tmp_path))


def test_minutes_bound_a_run_over_all_its_resumptions(footage: Footage, tmp_path: Path) -> None:
    run = Run(tmp_path, minutes=1e-4)
    autoencoder(run, footage)
    assert run.progress == 1
    assert run.step >= 1
    again = Run(tmp_path, minutes=1e-4)
    autoencoder(again, footage)
    assert again.step == run.step
