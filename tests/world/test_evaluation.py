"""Evaluation measures what it says, against the frame, the tick and the button that it says."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from playhead.main import main
from playhead.render.evaluate.commands import comparison
from playhead.world import evaluation
from playhead.world.action import ActionSpace
from playhead.world.clips import cut_clips
from playhead.world.errors import PlayheadError
from playhead.world.evaluation import (
    CONTEXT,
    HORIZONS,
    LOOKS,
    PLAYERS,
    Clip,
    Evaluation,
    as_numbers,
    in_turns,
    prepare,
)
from playhead.world.inverse import AFTER, BEFORE, InverseDynamics, f1, held_buttons
from playhead.world.metrics import colour, frechet, psnr, sharpness
from playhead.world.noise import PrefetchedNoise
from playhead.world.state import WorldState
from playhead.world.training.footage import Footage
from playhead.world.training.run import Run
from playhead.world.training.train_inverse import InverseTraining, train_inverse
from playhead.world.world import World
from playhead.world.world_folders import SHIPPED
from tests.conftest import BUTTONS, make_tiny_world, save_world
from tests.world.game import LAMPS, film, next_frame, write_footage

ROOT = Path(__file__).parents[2]
LENGTH = CONTEXT + max(HORIZONS)
modest = settings(max_examples=30, deadline=None)
sizes = st.integers(3, 12)


# ------------------------------------------------------------------------------------- the measures


@modest
@given(st.integers(0, 255), st.integers(0, 255), sizes, sizes)
def test_psnr_of_flat_pictures_is_that_of_their_difference(a: int, b: int, height: int, width: int) -> None:
    pictures = [torch.full((2, height, width, 3), grey, dtype=torch.uint8) for grey in (a, b)]
    wanted = min(60.0, 20 * math.log10(255 / abs(a - b))) if a != b else 60.0
    assert psnr(*pictures).tolist() == pytest.approx([wanted, wanted], abs=1e-4)
    assert torch.equal(psnr(*pictures), psnr(*pictures[::-1]))


def test_psnr_is_a_frames_own() -> None:
    frames = torch.zeros(3, 4, 5, 3, dtype=torch.uint8)
    other = frames.clone()
    other[1, 0, 0, 0] = 255  # one of 60 values is as wrong as can be
    assert psnr(frames, other).tolist() == pytest.approx([60, 10 * math.log10(60), 60], abs=1e-4)


def test_sharpness_is_none_in_a_ramp_and_grows_with_contrast_and_detail() -> None:
    ramp = torch.arange(12, dtype=torch.uint8).repeat(12, 1)[..., None].expand(-1, -1, 3)
    assert sharpness(ramp) == 0
    line = torch.zeros(12, 12, 3, dtype=torch.uint8)
    line[:, 6] = 100
    assert float(sharpness(line)) == pytest.approx((100 + 200 + 100) / 10)  # over the 10 inner columns
    assert sharpness(line // 2) == pytest.approx(0.5 * sharpness(line))
    checks = (torch.arange(12)[:, None] + torch.arange(12)) % 2 * 100
    checks = checks[..., None].expand(-1, -1, 3).to(torch.uint8)
    assert float(sharpness(checks)) == pytest.approx(400)
    assert sharpness(checks.roll(1, 0)) == pytest.approx(sharpness(checks))


def test_colour_is_the_mean_of_each_channel_and_the_contrast() -> None:
    picture = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(2, 4, 6, 3).clone()
    assert colour(picture).tolist() == [[10, 20, 30, 0]] * 2
    picture[1, :2] += 100
    mean = [60, 70, 80]
    spread = 50 * math.sqrt(24 / 23)
    assert colour(picture)[1].tolist() == pytest.approx([*mean, spread])


def test_f1_is_that_of_each_button() -> None:
    held = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 1], [0, 0, 1, 0, 0]]) > 0
    seen = torch.tensor([[1, 0, 0, 0, 1], [1, 1, 0, 1, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]) > 0
    found = f1(seen, held).tolist()
    assert found == pytest.approx([1, 0, 2 / 3, 0, 0.5])
    never = torch.zeros(4, 1, dtype=torch.bool)
    assert f1(never, never).isnan().all()  # nothing to judge by


# --------------------------------------------------------------------------------------- the clips


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


# -------------------------------------------------------------------------------- the tiny world


def run(measured: Evaluation, ticks: int, **options: Any) -> None:
    for _ in measured.each_tick(ticks, **options):
        pass


def counting_clip(place: str = "count") -> Clip:
    """Frame t is flat grey of level 3 t, and action t holds the buttons of t in binary."""
    levels = 3 * torch.arange(LENGTH, dtype=torch.uint8)
    bits = torch.arange(LENGTH)[:, None] >> torch.arange(8) & 1
    return Clip(levels[:, None, None, None].expand(-1, 64, 64, 3), bits.to(torch.uint8), place)


def wall_clip(seed: int, place: str = "wall") -> Clip:
    frames, actions = film(LENGTH, seed)
    return Clip(torch.from_numpy(frames), torch.from_numpy(actions), place)


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


# --------------------------------------------------- a world that is the game itself, and its keys


class GameItself:
    """Stands for a world whose latents are frames and which dreams exactly what the game would show.

    `lag`: how many ticks late it obeys. `dim_from`: the tick from which on it shows half the brightness.
    """

    decoder_span = 0

    def __init__(self, lag: int = 0, dim_from: int = 10**9) -> None:
        self.lag, self.dim_from = lag, dim_from
        self.device = torch.device("cpu")
        self.config = SimpleNamespace(
            name="game",
            action=ActionSpace(BUTTONS),
            generator=SimpleNamespace(inputs=len(BUTTONS)),
            sampling=SimpleNamespace(latents_per_tick=1),
            label=lambda place: [],  # the game knows where it is
        )

    def encode(self, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(frames).float()

    def new_state(self, batch: int = 1) -> SimpleNamespace:
        shape = (batch, 1, 64, 64, 3)
        return SimpleNamespace(
            batch=batch,
            latent=torch.zeros(shape),
            action=torch.zeros(batch, 1, 8),
            frames=torch.zeros(shape, dtype=torch.uint8),
            held=[torch.zeros(batch, 8)] * self.lag,
            tick=0,
        )

    def relive(
        self, state: SimpleNamespace, actions: Tensor, latents: Tensor, seeds: Sequence[int], tick: int
    ) -> None:
        state.latent.copy_(latents)

    def denoise(self, state: SimpleNamespace, actions: Tensor, seeds: Sequence[int], tick: int) -> None:
        state.held.append(actions[:, 0])
        rows, state.tick = state.held.pop(0), tick + 1
        frames = state.latent[:, 0].to(torch.uint8).numpy()
        after = [next_frame(f, row) for f, row in zip(frames, rows.to(torch.uint8).numpy(), strict=True)]
        state.latent.copy_(torch.from_numpy(np.stack(after))[:, None])

    def decode(self, state: SimpleNamespace) -> Tensor:
        dim = 2 if state.tick >= self.dim_from else 1
        state.frames.copy_(state.latent.div(dim, rounding_mode="floor").to(torch.uint8))
        return state.frames  # the same memory every time, as a world's

    def commit(self, state: SimpleNamespace) -> None:
        pass


@pytest.fixture(scope="module")
def inverse(tmp_path_factory: pytest.TempPathFactory) -> InverseDynamics:
    """Trained to tell the lamps of the game from its pictures."""
    folder = tmp_path_factory.mktemp("inverse")
    footage = Footage.load(write_footage(folder / "footage", 20, 60), torch.device("cpu"))
    run = Run(folder / "run", steps=300)
    return train_inverse(run, footage, InverseTraining(clips=16), torch.device("cpu")).eval()


def test_the_buttons_seen_are_those_held_at_that_very_frame(inverse: InverseDynamics) -> None:
    """On a wall never seen before; against the actions of a tick sooner or later the score falls."""
    frames, actions = film(200, 900_000)
    seen = held_buttons(inverse, torch.from_numpy(frames))
    assert len(seen) == 200 - BEFORE - AFTER

    def score(shift: int) -> float:
        held = torch.from_numpy(actions)[BEFORE + shift : len(seen) + BEFORE + shift] > 0
        return float(f1(seen, held).nanmean())

    assert score(0) > 0.9
    assert score(1) < score(0) - 0.1
    assert score(-1) < score(0) - 0.1


def test_windows_in_parts_are_the_windows_one_by_one(inverse: InverseDynamics) -> None:
    frames = torch.from_numpy(film(150, 3)[0])
    seen = held_buttons(inverse, frames)
    for t in (0, 63, 64, 100, len(seen) - 1):  # across the parts that are judged at once
        assert torch.equal(held_buttons(inverse, frames[t : t + BEFORE + 1 + AFTER])[0], seen[t])


@pytest.fixture(scope="module")
def obedient(inverse: InverseDynamics) -> Evaluation:
    """The game itself, dreamed through four chunks of ticks."""
    game: Any = GameItself()
    measured = Evaluation(game, [wall_clip(900_000 + i, f"place {i}") for i in range(3)], inverse)
    run(measured, 256)
    return measured


def test_a_dream_that_is_the_game_is_perfect_at_every_horizon(obedient: Evaluation) -> None:
    scores = obedient.scores(ceiling=obedient.ceiling())
    assert scores.ceiling == pytest.approx(60)
    assert scores.dreamed == pytest.approx(dict.fromkeys(HORIZONS, 60))
    assert all(copied < 30 for copied in scores.copied.values())


def test_a_dream_that_obeys_follows_as_well_as_real_footage(obedient: Evaluation) -> None:
    scores = obedient.scores()
    assert scores.following_real > 0.9
    assert scores.following.keys() == {64, 256}
    assert all(score > 0.9 for score in scores.following.values())
    assert {name for name, score in scores.following_buttons.items() if score > 0.9} == set(LAMPS)
    assert all(math.isnan(scores.following_buttons[name]) for name in set(BUTTONS) - set(LAMPS))


@pytest.mark.parametrize("lag", [1, 2])
def test_a_dream_that_obeys_late_does_not_follow(lag: int, inverse: InverseDynamics) -> None:
    game: Any = GameItself(lag=lag)
    measured = Evaluation(game, [wall_clip(900_000)], inverse)
    run(measured, 256)
    scores = measured.scores()
    assert all(score < scores.following_real - 0.1 for score in scores.following.values())
    assert scores.dreamed[1] < 30  # the lamps are wrong


def test_a_dream_that_is_the_game_looks_like_it_and_one_that_fades_does_not(obedient: Evaluation) -> None:
    scores = obedient.scores()
    assert scores.sharpness.keys() == set(LOOKS) & {16, 64, 256}
    for tick in scores.sharpness:
        assert scores.sharpness[tick] == pytest.approx(1, abs=0.1)
        assert scores.contrast[tick] == pytest.approx(1, abs=0.15)
        assert scores.colour[tick] < 0.15
    game: Any = GameItself(dim_from=60 - 8)
    faded = Evaluation(game, obedient.clips, None)
    run(faded, 64)
    half = faded.scores()
    assert half.sharpness[16] == pytest.approx(scores.sharpness[16])
    assert half.sharpness[64] == pytest.approx(0.5 * scores.sharpness[64], rel=0.1)
    assert half.contrast[64] == pytest.approx(0.5 * scores.contrast[64], rel=0.1)
    assert half.colour[64] > 0.4


def test_progress_is_told_tick_by_tick(tiny_world: World) -> None:
    assert list(Evaluation(tiny_world, [wall_clip(0)], None).each_tick(5)) == [1, 2, 3, 4, 5]


# --------------------------------------------------------------------------- the whole, and its words


def test_there_are_scores_for_every_place_and_for_all(tiny_world: World, tmp_path: Path) -> None:
    for place in ("cellar", "attic"):
        write_footage(tmp_path, 1, LENGTH, seed=900_000, place=place)
    measured = prepare(tiny_world, None, tmp_path, cut_clips(tmp_path, 2))
    run(measured, 64)
    found = measured.result()
    assert list(found) == ["attic", "cellar", "all"]
    assert [scores.clips for scores in found.values()] == [2, 2, 4]
    numbers = as_numbers(found["all"])
    assert numbers["dreamed"].keys() == {str(h) for h in HORIZONS}
    assert numbers["following_real"] is None  # there is no model to judge by
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


@pytest.mark.parametrize(
    ("height", "width", "buttons", "words"),
    [(32, 64, 8, "32 x 64"), (64, 48, 8, "64 x 48"), (64, 64, 5, "5 buttons")],
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside one that fits"])
def test_episodes_of_another_world_end_in_one_sentence(
    height: int,
    width: int,
    buttons: int,
    words: str,
    alone: bool,
    tiny_world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    frames, actions = film(LENGTH, 0)
    np.savez(
        tmp_path / "other.npz", frames=frames[:, :height, :width], actions=actions[:, :buttons], place="b"
    )
    if not alone:
        write_footage(tmp_path, 1, LENGTH, place="a")
    arguments = [
        "evaluate",
        "--world",
        str(tiny_world_folder),
        "--episodes",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    said = refuse(arguments, monkeypatch, capfd)
    assert words in said
    assert str(tmp_path) in said


def refuse(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    """The one sentence in which a command ends that cannot be done."""
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("playhead: ")
    assert len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--episodes": "nowhere"}, "nowhere holds no .npz episodes"),
        ({"--episodes": "short"}, f"no episode in short is {LENGTH} frames long"),
        ({"--world": "atlantis"}, "no world `atlantis`"),
        ({"--steps": "0"}, "not 0; try --steps 2"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    change: dict[str, str],
    words: str,
    tiny_world_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_footage(tmp_path / "short", 1, LENGTH - 1)
    given_ = {"--world": str(tiny_world_folder), "--episodes": "short", "--device": "cpu", **change}
    said = refuse(["evaluate", *(x for pair in given_.items() for x in pair)], monkeypatch, capfd)
    assert words in said


@pytest.mark.skipif(
    not (SHIPPED / "freedoom" / "generator.safetensors").is_file(), reason="freedoom's weights are not here"
)
def test_the_shipped_world_is_measured_on_held_out_footage_from_the_command_line(tmp_path: Path) -> None:
    """On frames filmed on the spot: every field is there, and the numbers can be those of a trained world."""
    pytest.importorskip("vizdoom", reason="needs vizdoom (the extra `train`)")
    from playhead.world.training.collect import episode_path, write_episode
    from playhead.world.training.doom import film as film_game
    from playhead.world.training.doom import open_game
    from playhead.world.training.places import PLACES

    name = "my_way_home"
    with open_game(PLACES[name]) as game:
        frames, actions = film_game(game, PLACES[name], 900_000, LENGTH)
    write_episode(episode_path(tmp_path, name, 900_000), frames, actions, name, 900_000)
    command = [sys.executable, "main.py", "evaluate", "--episodes", str(tmp_path), "--json"]
    command += ["--ticks", "64", "--clips", "1", "--device", "cpu"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert list(found) == [name, "all"]
    for scores in found.values():
        assert scores["clips"] == 1
        assert scores["dreamed"].keys() == scores["copied"].keys() == {str(h) for h in HORIZONS}
        for field in ("sharpness", "colour", "contrast"):
            assert scores[field].keys() == {"16", "64"}
        assert scores["following"].keys() == {"64"}
        assert 0 <= scores["following_real"] <= 1
        assert scores["following_buttons"].keys() == set(BUTTONS)
        assert 20 < scores["ceiling"] < 60
        assert all(5 < value < 60 for value in [*scores["dreamed"].values(), *scores["copied"].values()])
    overall = found["all"]
    assert overall["dreamed"]["1"] < overall["ceiling"] + 1
    assert overall["dreamed"]["1"] > overall["dreamed"]["64"]


# ------------------------------------------------------------------ long evaluations, and many at once


def test_the_frechet_distance_is_that_of_gaussians() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(4000, 3, generator=draw), torch.randn(4000, 3, generator=draw)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) < 0.02
    assert frechet(a, 2 * b + torch.tensor([3.0, 0, 0])) == pytest.approx(9 + 3, rel=0.05)
    assert math.isnan(frechet(a, b[:1]))


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


def test_runs_are_compared_in_one_table_with_pictures(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    episodes = write_footage(tmp_path / "heldout", 2, LENGTH)
    for name, seconds in (("one", 90), ("two", 600)):
        save_world(tiny_world, tmp_path / name / "world")
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 5, "seconds": seconds}) + "\n")
    arguments = ["evaluate", "--episodes", str(episodes), "--clips", "1", "--ticks", "64", "--device", "cpu"]
    arguments += ["--compare", str(tmp_path / "one"), "--compare", str(tmp_path / "two")]
    arguments += ["--out", str(tmp_path / "out"), "--json"]
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(r["run"], r["steps"]) for r in rows] == [(n, s) for n in ("one", "two") for s in (1, 2, 4)]
    assert [r["minutes"] for r in rows] == [1.5] * 3 + [10.0] * 3
    assert rows[0]["dreamed"]["8"] != rows[1]["dreamed"]["8"]  # steps count
    assert rows[0]["dreamed"] == rows[3]["dreamed"]  # the same weights
    for file in ("sheet.png", "timelapse.mp4"):
        assert (tmp_path / "out" / "two-4" / file).stat().st_size > 500
    table = comparison(rows)
    assert table.row_count == 8


def test_pictures_need_no_pyav_and_that_the_film_is_lacking_is_said(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    episodes = write_footage(tmp_path / "heldout", 1, LENGTH)
    world, out = save_world(tiny_world, tmp_path / "world"), tmp_path / "out"
    words = ["evaluate", "--world", world, "--episodes", episodes, "--clips", "1", "--ticks", "64", "--json"]
    monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words), "--device", "cpu", "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr().err
    assert end.value.code == 0, said
    assert said.count("there will be no time-lapse: PyAV is missing") == 1
    assert (out / "sheet.png").is_file() and not list(out.glob("*.mp4"))
