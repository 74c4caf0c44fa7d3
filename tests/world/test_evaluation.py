"""Evaluation measures what it says, against the frame, the tick and the button that it says."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from playhead.world import evaluation
from playhead.world.clips import cut_clips
from playhead.world.errors import PlayheadError
from playhead.world.evaluation import CONTEXT, HORIZONS, PLAYERS, Evaluation, in_turns
from playhead.world.metrics import psnr
from playhead.world.noise import PrefetchedNoise
from playhead.world.state import WorldState
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_world
from tests.world.game import film, write_footage
from tests.world.measuring import LENGTH, counting_clip, run, wall_clip


def test_clips_are_pieces_of_their_episodes_spread_evenly(tmp_path: Path) -> None:
    for place, lengths in (
        ("cellar", [LENGTH + 40, LENGTH]),
        ("attic", [LENGTH + 10]),
        ("hall", [LENGTH - 1]),
    ):
        for seed, length in enumerate(lengths):
            write_footage(tmp_path, 1, length, seed=seed, place=place)
    clips = cut_clips(tmp_path, 4)
    assert [clip.place for clip in clips] == ["attic"] * 4 + ["cellar"] * 4  # the hall is too short
    frames, actions = film(LENGTH + 40, 0)
    for clip, start in ((clips[4], 0), (clips[6], 20)):
        assert np.array_equal(clip.frames, frames[start : start + LENGTH])
        assert np.array_equal(clip.actions, actions[start : start + LENGTH])
    assert np.array_equal(clips[5].frames, film(LENGTH, 1)[0])
    assert len({clip.frames.numpy().tobytes() for clip in clips[:4]}) == 4


def test_copies_are_of_the_last_frame_of_the_context(tiny_world: World) -> None:
    """Levels differ by 3 a tick, so that the copy's error says how far it is away."""
    measured = Evaluation(tiny_world, [counting_clip()], None)
    run(measured, max(HORIZONS))
    copied = measured.scores().copied
    assert copied.keys() == set(HORIZONS)
    for horizon, found in copied.items():
        assert found == pytest.approx(20 * math.log10(255 / (3 * horizon)), abs=1e-3)


def test_every_tick_dreams_under_the_action_held_on_the_frame_before(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the context, in the continuation, and after it, when the clip's actions start over."""
    asked: list[int] = []
    led: list[int] = []
    denoise, commit = World.denoise, World.commit

    def number(actions: Tensor) -> int:
        return int((actions[0, 0] * 2 ** torch.arange(8)).sum())

    def watch_denoise(
        world: World, state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int
    ) -> None:
        asked.append(number(actions))
        assert tick == len(asked) - 1
        denoise(world, state, actions, seeds, tick)

    def watch_commit(world: World, state: WorldState) -> None:
        led.append(number(state.action))
        commit(world, state)

    monkeypatch.setattr(World, "denoise", watch_denoise)
    monkeypatch.setattr(World, "commit", watch_commit)
    ticks = max(HORIZONS) + 5
    run(Evaluation(any_world, [counting_clip()], None), ticks)
    span = range(CONTEXT - 1, LENGTH - 1)
    assert led[:CONTEXT] == [0, *range(CONTEXT - 1)]  # nothing led to the first frame
    assert asked == [*span, *span[:5]]
    assert led[CONTEXT:] == asked  # each is committed with the action that it was dreamed under


def test_a_perfect_dream_scores_the_ceiling(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real latents in place of dreamed ones all that is missing is what the decoder loses."""
    clips = [counting_clip(), wall_clip(1), wall_clip(2)]
    real = torch.stack([tiny_world.encode(clip.frames.numpy()) for clip in clips])

    def remember(state: WorldState, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        state.latent.copy_(real[:, CONTEXT + tick : CONTEXT + tick + 1])

    monkeypatch.setattr(evaluation, "HORIZONS", tuple(range(1, max(HORIZONS) + 1)))
    world = make_tiny_world()
    monkeypatch.setattr(world, "denoise", remember)
    measured = Evaluation(world, clips, None)
    ceiling = measured.ceiling()
    run(measured, max(HORIZONS))
    dreamed = torch.stack([measured.dreamed[tick] for tick in range(1, max(HORIZONS) + 1)])
    assert torch.allclose(dreamed.mean(0), ceiling, atol=0.01)
    assert dreamed.std(0).min() > 0.05  # and the frames differ, so that none could stand for another


def test_the_ceiling_is_that_of_the_frames_after_the_context(tiny_world: World) -> None:
    """Decoded as one stream, as in play."""
    clip = wall_clip(3)
    latents = tiny_world.encode(clip.frames.numpy())
    with torch.no_grad():
        rebuilt, _ = tiny_world.autoencoder.decoder(latents[None])
    frames = (rebuilt[0].clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)
    wanted = psnr(frames, clip.frames)[CONTEXT:].mean()
    assert torch.allclose(Evaluation(tiny_world, [clip], None).ceiling(), wanted, atol=0.01)


def test_clips_dreamed_side_by_side_score_as_each_alone(tiny_world: World) -> None:
    clips = [wall_clip(1, "cellar"), wall_clip(2, "attic")]
    together = Evaluation(tiny_world, clips, None)
    run(together, 64)
    alone = Evaluation(tiny_world, clips[:1], None)
    run(alone, 64)
    one, all_of_them = together.scores("cellar"), together.scores()
    assert (one.clips, all_of_them.clips) == (1, 2)
    for name in ("dreamed", "copied", "sharpness", "colour", "contrast"):
        assert getattr(one, name) == pytest.approx(getattr(alone.scores(), name), rel=1e-3, abs=1e-3)
    both = [together.scores(place).dreamed for place in ("cellar", "attic")]
    for horizon, value in all_of_them.dreamed.items():
        assert value == pytest.approx((both[0][horizon] + both[1][horizon]) / 2)


def test_progress_is_told_tick_by_tick(tiny_world: World) -> None:
    assert list(Evaluation(tiny_world, [wall_clip(0)], None).each_tick(5)) == [1, 2, 3, 4, 5]


def test_players_hold_what_they_are_named_for(tiny_world: World) -> None:
    clips = [counting_clip("a"), wall_clip(1, "b")]
    span = LENGTH - CONTEXT
    by_player = {p: Evaluation(tiny_world, clips, None, p) for p in PLAYERS}
    own = [by_player["footage"].action(t) for t in range(span)]
    for measured in by_player.values():  # as far as the clip goes there is a truth to compare with
        assert all(torch.equal(measured.action(t), own[t]) for t in range(span))
    assert not by_player["idle"].action(span + 3).any()
    assert torch.equal(by_player["wander"].action(span + 3), own[3].flip(0))
    assert torch.equal(by_player["footage"].action(span + 3), own[3])
    spun = by_player["spin"].action(span)
    assert spun[:, BUTTONS.index("turn_left")].all() and spun.sum() == len(clips)


def test_an_interrupted_evaluation_goes_on_to_the_same_scores(any_world: World, tmp_path: Path) -> None:
    clips = [wall_clip(900_000), wall_clip(900_001)]
    whole = Evaluation(any_world, clips, None, "idle")
    run(whole, 90)
    path = tmp_path / "evaluation.pt"

    begun = Evaluation(any_world, clips, None, "idle").each_tick(90, checkpoint=path, save_every=0)
    assert next(tick for tick in begun if tick == 70)
    begun.close()
    again = Evaluation(any_world, clips, None, "idle")
    assert list(again.each_tick(90, checkpoint=path)) == list(range(71, 91))
    assert str(again.scores()) == str(whole.scores())
    with pytest.raises(PlayheadError, match="of other settings"):
        run(Evaluation(any_world, clips, None, "spin"), 90, checkpoint=path)


def test_frames_that_nobody_looks_at_make_no_difference(any_world: World) -> None:
    """Without a watcher most ticks are not decoded, and the decoder forgets what came before."""
    clips = [wall_clip(900_000), wall_clip(900_001)]
    watched, alone = (Evaluation(any_world, clips, None, "wander") for _ in range(2))
    shown: list[int] = []
    run(watched, 256, watch=lambda tick, frames: shown.append(tick))
    decoded: list[int] = []
    real_decode = any_world.decode

    def decode(state: WorldState) -> Tensor:
        decoded.append(state.cache.length)
        return real_decode(state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(any_world, "decode", decode)
        run(alone, 256)
    assert shown == list(range(1, 257))
    assert len(decoded) < 200
    assert str(alone.scores()) == str(watched.scores())


def test_evaluations_side_by_side_score_what_each_scores_alone(any_world: World) -> None:
    clips = [wall_clip(900_000), wall_clip(900_001)]

    def fresh() -> list[Evaluation]:
        return [Evaluation(any_world, clips, None, player) for player in ("idle", "spin")]

    alone, together = fresh(), fresh()
    for measured in alone:
        run(measured, 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(any_world, "noises", PrefetchedNoise())
        works = [measured.each_tick(ticks) for measured, ticks in zip(together, (80, 64), strict=True)]
        done = list(in_turns(works, torch.device("cpu")))
    assert done[:4] == [(0, 1), (1, 1), (0, 2), (1, 2)] and done[-16:] == [(0, t) for t in range(65, 81)]
    assert str(together[0].scores()) == str(alone[0].scores())
