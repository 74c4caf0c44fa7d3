"""Footage in which one chord is held, and the sessions that are matched to it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from playhead.world.training.footage import Footage
from playhead.world.training.random_player import BEHAVIOURS, STEADY, RandomPlayer, Surroundings, behaviours
from playhead.world.training.steady import FREE, TURN, SteadyWindows

LENGTH = 4


def footage(*episodes: list[int]) -> Footage:
    """Episodes of the chords numbered so: bit by bit the two buttons."""
    actions = torch.tensor([[n & 1, n >> 1] for episode in episodes for n in episode], dtype=torch.uint8)
    starts = [sum(map(len, episodes[:i])) for i in range(len(episodes))]
    return Footage(torch.zeros(len(actions), 1, 1, 3), actions, starts, ["room"] * len(episodes))


runs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=6)
played = st.lists(runs.map(lambda r: [n for n, count in r for _ in range(count)]), min_size=1, max_size=4)


@given(played, st.integers(0, 2**20))
def test_a_steady_session_gets_windows_that_its_own_chord_led_to(episodes, seed):
    filmed = footage(*episodes)
    steady = SteadyWindows(filmed, LENGTH, least=1)
    draw = torch.Generator().manual_seed(seed)
    chords = steady.choose(12, 1.0, draw)
    clips = torch.zeros(12, LENGTH, dtype=torch.int64)
    found = steady.replace(clips, chords, draw)
    led, held = filmed.led(), steady.held(chords)
    assert torch.equal(found[chords == FREE], clips[chords == FREE])
    assert not held[chords == FREE].any()
    for chord, window, buttons in zip(chords.tolist(), found, held, strict=True):
        if chord != FREE:
            assert torch.equal(led[window], buttons.expand(LENGTH, -1))
            episode = torch.searchsorted(torch.tensor(filmed.starts), window, right=True)
            assert len(episode.unique()) == 1 and torch.equal(window, window[0] + torch.arange(LENGTH))


def test_no_window_is_of_an_episode_that_is_held_back():
    filmed = footage(*[[i % 3] * 9 for i in range(30)])
    filmed.hold_back(3)
    steady = SteadyWindows(filmed, LENGTH, least=1)
    draw = torch.Generator().manual_seed(0)
    chords = steady.choose(400, 1.0, draw)
    found = steady.replace(torch.zeros(400, LENGTH, dtype=torch.int64), chords, draw)
    assert set((found // 9).flatten().tolist()) == set(range(30)) - filmed.held_back


@given(played)
def test_every_window_that_a_chord_led_to_is_known(episodes):
    steady = SteadyWindows(footage(*episodes), LENGTH, least=1)
    wanted = {
        n
        for episode in episodes
        for i, n in enumerate(episode)
        if episode[i : i + LENGTH] == [n] * LENGTH and i + LENGTH < len(episode)
    }
    assert {int(a + 2 * b) for a, b in steady.chords.tolist()} == wanted


def test_half_of_the_steady_sessions_rest_and_the_others_are_free():
    filmed = footage([0] * 30, [1] * 30, [2] * 80)
    steady = SteadyWindows(filmed, LENGTH)
    chords = steady.choose(4000, 0.5, torch.Generator().manual_seed(0))
    assert (chords == FREE).float().mean() == pytest.approx(0.5, abs=0.04)
    held = steady.held(chords[chords != FREE])
    assert (~held.any(1)).float().mean() == pytest.approx(0.5, abs=0.04)
    longer = held[:, 1].mean()  # chord 2, the one that footage holds for longer
    assert longer == pytest.approx(0.5 * 76 / 102, abs=0.04)
    resting = steady.choose(400, 0.5, torch.Generator().manual_seed(0), rest=1.0)
    assert set(resting.tolist()) == {FREE, 0}


def test_all_sessions_are_free_where_footage_holds_nothing_for_long():
    steady = SteadyWindows(footage([0, 1, 2, 3] * 9), LENGTH)
    assert (steady.choose(9, 1.0, torch.Generator().manual_seed(0)) == FREE).all()
    rare = SteadyWindows(footage([0] * 9 + [1, 2] * 9), LENGTH)
    assert (rare.choose(9, 1.0, torch.Generator().manual_seed(0)) == FREE).all()


def test_where_nobody_rests_a_button_is_held_and_where_nobody_moves_all_rest():
    held = SteadyWindows(footage([1] * 40), LENGTH)
    assert held.held(held.choose(9, 1.0, torch.Generator().manual_seed(0))).tolist() == [[1.0, 0.0]] * 9
    rest = SteadyWindows(footage([0] * 40), LENGTH)
    chords = rest.choose(9, 1.0, torch.Generator().manual_seed(0))
    assert (chords == 0).all() and not rest.held(chords).any()


@given(st.integers(0, 2**20))
def test_sessions_turn_now_and_then_and_as_many_rest_after_it_as_before(seed):
    steady = SteadyWindows(footage([0] * 30, [1] * 30), LENGTH)
    draw = torch.Generator().manual_seed(seed)
    before = steady.choose(4000, 0.5, draw)
    after = steady.turn(before, 0.5, draw)
    # Of the 200 that choose anew, three in eight choose what they had.
    assert (after != before).float().mean() == pytest.approx(TURN * (1 - 0.25 - 2 * 0.0625), abs=0.015)
    for _ in range(40):
        after = steady.turn(after, 0.5, draw)
    for chord, share in ((FREE, 0.5), (0, 0.25), (1, 0.25)):
        assert (after == chord).float().mean() == pytest.approx(share, abs=0.04)
    never = SteadyWindows(footage([1] * 30), LENGTH)
    assert set(never.turn(torch.full((4000,), FREE), 1.0, draw).tolist()) == {FREE, 0}
    assert not (never.held(torch.tensor([0])) == 0).all()


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_steady_player_holds_one_thing_for_seconds_for_that_share_of_the_time(share):
    player = RandomPlayer(np.random.default_rng(1), behaviours(share))
    long = {behaviour.mode for behaviour in STEADY}
    held = []
    for _ in range(60_000):
        player.press(Surroundings())
        held.append(player.behaviour.mode in long)
    assert np.mean(held) == pytest.approx(share, abs=0.08)
    assert behaviours(0.0)[: len(BEHAVIOURS)] == BEHAVIOURS and not any(
        h.weight for h in behaviours(0.0)[len(BEHAVIOURS) :]
    )
