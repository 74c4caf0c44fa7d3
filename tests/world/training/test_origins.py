"""Where dreams began: a chain goes on as its own episode did, and its judge is shown what it set out from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from playhead.world.checkpoint import save_weights
from playhead.world.errors import PlayheadError
from playhead.world.training.chains import Chain, ScoredWindow
from playhead.world.training.distill import Distiller, distill
from playhead.world.training.footage import Footage
from playhead.world.training.judge import Judge
from playhead.world.training.objectives import OBJECTIVES, DistillTraining
from playhead.world.training.origins import Origins, with_origin
from playhead.world.training.scorer import Scorer, ScorerTraining, train_scorer
from playhead.world.training.steady import EMPTY, FREE
from tests.conftest import make_tiny_world
from tests.world.training.runs import CONFIG, CPU
from tests.world.training.settings import BATCH, PAST, TICKS, make_setting
from tests.world.training.stages import Watched

BUTTONS = 8
JUDGED = [name for name in OBJECTIVES if name != "rest"]


def numbered(lengths: list[int]) -> tuple[Footage, Tensor]:
    """Episodes of at most 256 frames in all, and their latents: both hold the number of each frame."""
    numbers = torch.arange(sum(lengths))
    actions = (numbers[:, None] >> torch.arange(BUTTONS) & 1).to(torch.uint8)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    latents = (numbers / 256)[:, None, None, None].expand(-1, *CONFIG.latent_shape).clone()
    return Footage(torch.zeros(0, 1, 1, 3), actions, starts, ["room"] * len(lengths)), latents


def number(latents: Tensor) -> Tensor:
    """The numbers of the frames that latents `(B, F, C, h, w)` are of, `(B, F)`."""
    return (256 * latents[:, :, 0, 0, 0]).round().long()


lengths_of = st.lists(st.integers(12, 40), min_size=1, max_size=6)


@given(lengths_of, st.integers(0, 5), st.integers(0, 600), st.integers(0, 2**20))
def test_an_origin_lies_as_far_back_as_a_chain_is_old_and_in_the_same_episode(
    lengths: list[int], count: int, age: int, seed: int
) -> None:
    footage, _ = numbered(lengths)
    starts = footage.clip_index(20, 12, torch.Generator().manual_seed(seed))[:, 0]
    found = Origins(footage, count, past=5).index(starts, age)
    assert found.shape == (20, count)
    begins = torch.tensor(footage.starts)[footage.episodes(starts)]
    for row, start, begin in zip(found.tolist(), starts.tolist(), begins.tolist(), strict=True):
        first = max(begin, start + 5 - count - age)
        assert row == list(range(first, first + count))
    ages = torch.full((20,), age)
    assert torch.equal(found, Origins(footage, count, past=5).index(starts, ages))


@given(lengths_of, st.integers(1, 8), st.integers(0, 2**20))
def test_a_clip_is_followed_to_the_end_of_its_episode_and_no_further(
    lengths: list[int], ticks: int, seed: int
) -> None:
    footage, _ = numbered(lengths)
    draw = torch.Generator().manual_seed(seed)
    before, other = footage.clip_index(30, 12, draw), footage.clip_index(30, 12, draw)
    found = footage.follow(other, before[:, 0], ticks)
    inside = footage.episodes(before[:, 0]) == footage.episodes(before[:, -1] + ticks)
    inside &= before[:, -1] + ticks < sum(lengths)
    assert torch.equal(found[inside], (before + ticks)[inside])
    assert torch.equal(found[~inside], other[~inside])


def test_no_clip_is_followed_into_what_is_held_back_or_is_not_there() -> None:
    footage, _ = numbered([20] * 10)
    footage.hold_back(1)
    other = footage.clip_index(3, 12, torch.Generator().manual_seed(0))
    assert footage.held_back == {0}
    assert torch.equal(footage.follow(other, torch.tensor([0, 4, 900]), 2), other)


def test_the_first_latents_of_a_window_are_replaced_and_what_led_to_them_but_the_label() -> None:
    latents, actions, origin = torch.randn(2, 5, 1, 1, 1), torch.ones(2, 5, 4), torch.randn(2, 3, 1, 1, 1)
    shown, told = with_origin(latents, actions, origin, inputs=3)
    assert torch.equal(shown[:, :3], origin) and torch.equal(shown[:, 3:], latents[:, 3:])
    assert not told[:, :3, :3].any() and told[..., 3].all() and told[:, 3:].all()
    assert actions.all()
    assert with_origin(latents, actions, origin[:, :0], 3) == (latents, actions)


def run_distillation(folder: Path, footage: Footage, latents: Tensor, steps: int, **settings: object) -> None:
    start = folder / "generator.safetensors"
    save_weights(start, make_tiny_world(one_pass=True).generator.state_dict())
    wanted = DistillTraining(clips=4, length=6, past=3, critic_steps=2, horizon=60, **settings)
    run = Watched(folder / "run", steps)
    distill(
        run, latents, footage, CONFIG.generator, wanted, CONFIG.sampling, CPU, start, start, folder / "out"
    )


@pytest.mark.parametrize("origin", [0, 2, 3])
def test_a_free_session_does_what_was_done_after_its_past_and_is_paired_with_what_followed(
    origin: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its episode ends; the windows of footage begin with what lies as far back as its own begin."""
    footage, latents = numbered([14, 30, 9, 60, 11])
    ends = torch.tensor(footage.starts) + torch.tensor(footage.lengths)
    stretches: list[tuple[int, bool, Tensor]] = []
    pairs: list[tuple[ScoredWindow, tuple[Tensor, Tensor]]] = []
    dream, learn = Distiller.dream, Judge.learn

    def dreamed(
        self: Distiller, chain: Chain, actions: Tensor, draw: torch.Generator, keep: bool
    ) -> ScoredWindow:
        stretches.append((id(chain), chain.real > 0, chain.at.clone()))
        return dream(self, chain, actions, draw, keep)

    def learned(self: Judge, window: ScoredWindow, real: tuple[Tensor, Tensor], *rest: object) -> Tensor:
        pairs.append((window, real))
        return learn(self, window, real, *rest)

    monkeypatch.setattr(Distiller, "dream", dreamed)
    monkeypatch.setattr(Judge, "learn", learned)
    run_distillation(tmp_path, footage, latents, 60, steady=0.0, origin=origin)
    led, last, ages = footage.led(), {}, {}
    followed = left = 0
    for (chain, begins, at), (window, (shown, told)) in zip(stretches, pairs, strict=True):
        ages[chain] = 0 if begins else ages[chain] + 3
        clips = at[:, None] + torch.arange(6)
        assert torch.equal(window.actions[:, 3:], led[clips[:, 3:]])
        assert torch.equal(number(shown)[:, origin:], clips[:, origin:])
        assert torch.equal(told[:, origin:], led[clips[:, origin:]]) and not told[:, :origin].any()
        episodes = footage.episodes(at)
        first = (at + 3 - origin - ages[chain]).maximum(torch.tensor(footage.starts)[episodes])
        assert torch.equal(number(shown)[:, :origin], first[:, None] + torch.arange(origin))
        assert (at + 6 <= ends[episodes]).all()
        if not begins:
            goes_on = last[chain] + 3 + 6 <= ends[footage.episodes(last[chain])]
            assert torch.equal(at[goes_on], last[chain][goes_on] + 3)
            followed, left = followed + int(goes_on.sum()), left + int((~goes_on).sum())
        last[chain] = at
    assert followed and left


def distiller(folder: Path, objective: str, origin: int) -> tuple[Distiller, Tensor, Tensor]:
    """One whose judge remembers so much, and a past and actions to begin with."""
    world, _, past, actions = make_setting()
    start = folder / "generator.safetensors"
    save_weights(start, world.generator.state_dict(), torch.float32)
    settings = DistillTraining(
        objective=objective, clips=BATCH, length=PAST + TICKS, past=PAST, penalty=0.0, origin=origin,
        compile=False,
    )  # fmt: skip
    config = world.config
    given = config.generator, config.sampling, settings, config.latent_shape, CPU, start, start
    return Distiller(*given), past, actions


@pytest.mark.parametrize("origin", [0, 4, PAST])
@pytest.mark.parametrize("objective", JUDGED)
def test_a_judge_sees_clean_what_a_dream_began_with_however_old_it_is(
    objective: str, origin: int, tmp_path: Path
) -> None:
    three, past, actions = distiller(tmp_path, objective, origin)
    judge, chain, draw = three.judge, three.chains[0], torch.Generator().manual_seed(0)
    assert judge is not None
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    if judge.discriminator is not None:
        judge.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given))
    for scorer in (judge.critic, judge.teacher):
        if scorer is not None and judge.discriminator is None:
            scorer.model.register_forward_pre_hook(lambda _, given: seen.append((*given[:2], given[-1])))
    noises = torch.randn((PAST, BATCH, 1, *past.shape[2:]), generator=draw)
    free = torch.full((BATCH,), FREE)
    chain.begin(past, actions[:, :PAST], noises, free, torch.zeros(BATCH, BUTTONS), 9)
    began = past[:, PAST - origin :]
    for clean in (PAST, origin, origin):
        window = three.dream(chain, actions[:, PAST:], draw, False)
        dreamed = window.latents.clone(), window.actions.clone()
        real = with_origin(torch.randn(window.latents.shape, generator=draw), actions, began, BUTTONS)
        judge.learn(window, real, 1.0, draw)
        assert three.direction(window, real, draw).shape == window.stretch.latents.shape
        for x, levels, told in seen:
            assert torch.equal(x[:, :origin], began) and not told[:, :origin].any()
            assert not levels[:, :clean].any() and (levels[:, clean:] > 0).all()
            assert told[:, origin:].any()
        assert len(seen) >= 3
        seen.clear()
        assert torch.equal(window.latents, dreamed[0]) and torch.equal(window.actions, dreamed[1])


def test_of_a_session_that_holds_or_ever_held_one_chord_no_origin_is_told(tmp_path: Path) -> None:
    three, past, actions = distiller(tmp_path, "gan", 2)
    chain, noises = three.chains[0], torch.randn((PAST, BATCH, 1, *past.shape[2:]))
    before = torch.randn(BATCH, 2, *past.shape[2:])
    chords, nothing = torch.tensor([FREE, EMPTY]), torch.zeros(BATCH, BUTTONS)
    chain.begin(past, actions[:, :PAST], noises, chords, nothing, 9)
    assert torch.equal(chain.origin[0], past[0, -2:]) and not chain.origin[1].any()
    assert torch.equal(chain.shown(before)[0], before[0]) and not chain.shown(before)[1].any()
    chain.turn(torch.tensor([FREE, FREE]), nothing)
    assert chain.known.tolist() == [True, False] and torch.equal(chain.origin[0], past[0, -2:])
    chain.turn(torch.tensor([EMPTY, FREE]), nothing)
    assert not chain.shown(before).any() and not chain.origin.any()
    chain.begin(past, actions[:, :PAST], noises, torch.tensor([FREE, FREE]), nothing, 9)
    assert torch.equal(chain.origin, past[:, -2:]) and torch.equal(chain.shown(before), before)


def test_without_an_origin_a_judged_window_is_the_dreamed_one(tmp_path: Path) -> None:
    three, past, actions = distiller(tmp_path, "dmd", 0)
    chain, draw = three.chains[0], torch.Generator().manual_seed(0)
    noises = torch.randn((PAST, BATCH, 1, *past.shape[2:]), generator=draw)
    chords = torch.tensor([FREE, EMPTY])
    chain.begin(past, actions[:, :PAST], noises, chords, torch.zeros(BATCH, BUTTONS), 9)
    for real in (PAST, 0):
        window = three.dream(chain, actions[:, PAST:], draw, False)
        judged = window.judged(BUTTONS)
        assert judged.latents is window.latents and judged.actions is window.actions
        assert judged.clean == window.real == real


def test_a_chain_of_another_origin_is_not_gone_on_with(tmp_path: Path) -> None:
    one, other = (distiller(tmp_path, "dmd", origin)[0] for origin in (1, 2))
    with pytest.raises(ValueError, match="origin has another shape"):
        other.chains[0].load_state(one.chains[0].state())


def test_a_scorer_is_shown_origins_of_any_age_in_a_third_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footage, latents = numbered([40, 200])
    shown: list[tuple[Tensor, Tensor, int]] = []
    loss = Scorer.loss

    def watched(self: Scorer, x: Tensor, told: Tensor, clean: int, draw: torch.Generator) -> Tensor:
        shown.append((number(x), told, clean))
        return loss(self, x, told, clean, draw)

    monkeypatch.setattr(Scorer, "loss", watched)
    settings = ScorerTraining(clips=4, length=8, past=3, origin=2)
    run = Watched(tmp_path, 24)
    train_scorer(run, latents, footage, CONFIG.generator, settings, CPU, tmp_path / "scorer.safetensors")
    assert [clean for *_, clean in shown].count(2) == 8
    assert {clean for *_, clean in shown} == {0, 2, 3}
    back, untold = [], 0
    for frames, told, clean in shown:
        assert (frames[:, 2:].diff(dim=1) == 1).all()
        gap = frames[:, 2] - frames[:, 1]
        if clean == 2:
            nothing = (frames[:, :2] == 0).all(1)
            assert not told[:, :2].any() and (frames[~nothing, :2].diff(dim=1) == 1).all()
            assert torch.equal(*(footage.episodes(frames[~nothing, i]) for i in (0, -1)))
            back += gap[~nothing].tolist()
            untold += int(nothing.sum())
        else:
            assert (gap == 1).all()
    assert len(set(back)) > 8 and 0 < untold < 20


@pytest.mark.parametrize("settings", [DistillTraining, ScorerTraining])
@pytest.mark.parametrize("origin", [-1, 9])
def test_an_origin_that_does_not_fit_is_refused(settings: Callable[..., object], origin: int) -> None:
    with pytest.raises(PlayheadError, match="give --origin 0 to 8"):
        settings(origin=origin)
