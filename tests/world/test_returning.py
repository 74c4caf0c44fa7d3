"""A world's memory is measured by what it shows after an excursion, against what was seen before."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from playhead.main import main
from playhead.world.config import WorldConfig
from playhead.world.errors import PlayheadError
from playhead.world.kv_cache import FarMemory
from playhead.world.memory import cut_memory
from playhead.world.metrics import psnr
from playhead.world.returning import (
    MEMORY,
    ExcursionDream,
    ExcursionEpisode,
    ReturnEvaluation,
    ReturnScores,
    read_excursions,
)
from playhead.world.state import WorldState
from playhead.world.world import World
from tests.conftest import make_tiny_world, save_world
from tests.world.game import wall, write_footage

PAST = 5


def write_trip(
    folder: Path, seed: int, ticks: int = 3, place: str = "wall", **changed: object
) -> tuple[np.ndarray, np.ndarray]:
    """An episode of a still view: every frame shows one wall, and it was turned right, then left."""
    folder.mkdir(exist_ok=True)
    length = PAST + 2 * ticks
    frames, actions = wall(seed)[None].repeat(length, 0), np.zeros((length, 8), np.uint8)
    actions[PAST - 1 : PAST - 1 + ticks, 3] = actions[PAST - 1 + ticks : -1, 2] = 1
    fields = {
        "place": place,
        "seed": seed,
        "excursion": "right-left",
        "ticks": ticks,
        "past": PAST,
        **changed,
    }
    fields = {"frames": frames, "actions": actions, **fields}
    path = folder / f"{place}-{seed}-{ticks}.npz"
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})  # type: ignore[arg-type]
    return frames, actions


def remembering(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Has a world dream what it saw last, whatever is held; returns what will have been held."""
    held: list[Tensor] = []
    relive = world.relive
    seen: list[Tensor] = []

    def see(state: WorldState, actions: Tensor, latents: Tensor, seeds: Sequence[int], tick: int) -> None:
        seen[:] = [latents]
        relive(state, actions, latents, seeds, tick)

    def dream(state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        held.append(actions[:, 0].clone())
        state.latent.copy_(seen[0])

    monkeypatch.setattr(world, "relive", see)
    monkeypatch.setattr(world, "denoise", dream)
    return held


def test_who_shows_again_what_was_seen_scores_the_cap_and_who_does_not_scores_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, actions = write_trip(tmp_path, 1)
    write_trip(tmp_path, 2, place="hall")
    perfect, forgetful = make_tiny_world(), make_tiny_world()
    episodes = read_excursions(perfect, tmp_path, 1)
    held = remembering(perfect, monkeypatch)
    (result,) = ReturnEvaluation(perfect, forgetful, episodes).run()
    assert (result.excursion, result.ticks, result.clips) == ("right-left", 3, 2)
    assert result.real == pytest.approx(60)  # the view is the same, to the pixel
    assert result.dreamed == pytest.approx(result.cap, abs=0.01)
    assert result.cut is not None and result.cut < result.cap - 1
    assert np.array_equal(torch.stack(held, 1)[0], actions[PAST - 1 : -1])  # what it was held under


def test_the_real_game_is_measured_by_its_last_frame_against_the_last_before(tmp_path: Path) -> None:
    frames, _ = write_trip(tmp_path, 1)
    frames[:PAST] = 100
    frames[PAST - 1], frames[PAST:-1], frames[-1] = 50, 0, 60
    write_trip(tmp_path, 1, frames=frames)
    world = make_tiny_world()
    (result,) = ReturnEvaluation(world, None, read_excursions(world, tmp_path, 1)).run()
    assert result.real == pytest.approx(float(psnr(torch.tensor([[[50]]]), torch.tensor([[[60]]]))))
    assert result.cut is None


def test_excursions_are_measured_apart_on_so_many_clips_a_place(tmp_path: Path) -> None:
    for ticks in (3, 12):
        for seed in range(3):
            write_trip(tmp_path, seed, ticks)
        write_trip(tmp_path, 7, ticks, place="hall")
    world = make_tiny_world()
    episodes = read_excursions(world, tmp_path, 2)
    measured = ReturnEvaluation(world, None, episodes)
    done: list[int] = []
    results = measured.run(done.append)
    assert [(r.ticks, r.clips) for r in results] == [(3, 3), (12, 3)]
    assert done == list(range(1, measured.ticks + 1)) and measured.ticks == 2 * (3 + 12)


def dreamed(world: World, episodes: Sequence[ExcursionEpisode]) -> Tensor:
    dream = ExcursionDream(world, episodes)
    assert list(dream.each_tick()) == list(range(2 * episodes[0].length))
    return dream.frame


def test_a_dream_is_the_same_beside_others_and_if_all_of_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_tiny_world()
    write_trip(tmp_path, 1, 12)
    write_trip(tmp_path, 2, 12)
    (episodes,) = read_excursions(world, tmp_path, 2).values()
    both = dreamed(world, episodes)
    for episode, frame in zip(episodes, both, strict=True):
        assert (dreamed(world, [episode])[0].int() - frame.int()).abs().max() <= 1
    assert (both[0].int() - both[1].int()).abs().max() > 1  # neither stands for the other
    monkeypatch.setattr(World, "decoder_span", 99)
    assert torch.equal(dreamed(world, episodes), both)


def with_memory(config: WorldConfig, window: int, far: FarMemory | None = None) -> WorldConfig:
    sampling = msgspec.structs.replace(config.sampling, window=window, far=far)
    return msgspec.structs.replace(config, sampling=sampling)


@pytest.mark.parametrize(
    ("window", "far", "left"),
    [
        (48, None, (16, None)),
        (17, None, (16, None)),
        (16, FarMemory(8, 8, (0,)), (16, None)),
        (8, FarMemory(8, 4, (0, 1)), (8, FarMemory(2, 4, (0, 1)))),
        (6, FarMemory(2, 16, (1,)), (6, None)),
        (16, None, None),
        (8, FarMemory(2, 4, (0,)), None),
    ],
)
def test_a_memory_is_cut_to_so_many_frames_and_one_that_is_short_is_not(
    window: int, far: FarMemory | None, left: tuple[int, FarMemory | None] | None
) -> None:
    config = with_memory(make_tiny_world().config, window, far)
    cut = cut_memory(config)
    if left is None:
        assert cut is None
        return
    assert cut is not None
    assert (cut.sampling.window, cut.sampling.far) == left
    assert cut.sampling.reach <= MEMORY
    assert with_memory(cut, window, far) == config  # nothing else is another
    cut.check()


def test_a_world_is_loaded_with_less_of_a_memory_and_the_same_weights(tmp_path: Path) -> None:
    tiny = make_tiny_world()
    long = SimpleNamespace(**vars(tiny))
    long.config = with_memory(tiny.config, 24, FarMemory(2, 8, (0,)))
    folder = save_world(long, tmp_path / "long")  # type: ignore[arg-type]
    whole, cut = World.load(folder, "cpu"), World.load(folder, "cpu", memory=MEMORY)
    assert (whole.config.sampling.reach, cut.config.sampling.reach) == (40, MEMORY)
    for mine, other in zip(whole.generator.parameters(), cut.generator.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert World.load(folder, "cpu", memory=100).config == whole.config


# ------------------------------------------------------------------------------- the command's words


def say(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["main.py", "evaluate", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    return int(end.value.code or 0), out, " ".join(err.split())


def test_evaluate_knows_such_episodes_and_prints_a_row_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny = make_tiny_world()
    long = SimpleNamespace(**vars(tiny))
    long.config = with_memory(tiny.config, 24)
    worlds = {"short": save_world(tiny, tmp_path / "short")}
    worlds["long"] = save_world(long, tmp_path / "long")  # type: ignore[arg-type]
    for ticks in (3, 12):
        write_trip(tmp_path / "back", 1, ticks)
    asked = ["--episodes", str(tmp_path / "back"), "--clips", "1"]
    found = {}
    for name, folder in worlds.items():
        code, out, _ = say([*asked, "--world", str(folder), "--json"], monkeypatch, capfd)
        found[name] = [msgspec.convert(row, ReturnScores) for row in json.loads(out)]
        assert code == 0 and [row.ticks for row in found[name]] == [3, 12]
    assert all(row.cut is None for row in found["short"])
    near, far = found["long"]
    assert near.cut == near.dreamed  # within 16 frames both remember all there was
    assert far.cut != far.dreamed
    _, out, _ = say([*asked, "--world", str(worlds["long"])], monkeypatch, capfd)
    assert f"with {MEMORY} frames of memory" in out
    assert f"{far.dreamed:.1f}" in out and f"{far.cap:.1f}" in out and out.count("right-left") == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"past": None}, "does not say what excursion it is"),
        ({"past": 99}, "of which 99 cannot come before its excursion; film it again"),
        ({"past": 2}, "is longer or shorter than others of its excursion; film it again"),
    ],
)
def test_episodes_that_cannot_be_measured_are_named(
    changed: dict[str, object], words: str, tmp_path: Path
) -> None:
    write_trip(tmp_path, 1)
    write_trip(tmp_path, 2, **changed)
    with pytest.raises(PlayheadError, match="wall-2-3.npz .*" + words):
        read_excursions(make_tiny_world(), tmp_path, 4)


def test_ordinary_episodes_among_them_and_options_that_do_not_apply_end_in_one_sentence(
    tiny_world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_trip(tmp_path / "back", 1)
    asked = ["--episodes", str(tmp_path / "back"), "--world", str(tiny_world_folder)]
    code, _, said = say([*asked, "--out", str(tmp_path / "out")], monkeypatch, capfd)
    assert code == 2 and "without --compare and --out; leave those out" in said
    write_footage(tmp_path / "back", 1, 20)
    code, _, said = say(asked, monkeypatch, capfd)
    assert code == 2 and "does not say what excursion it is" in said and "Traceback" not in said
