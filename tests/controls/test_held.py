"""What is held: several things at once, taps that are never lost, nothing that sticks."""

from hypothesis import given
from hypothesis import strategies as st

from playhead.controls.held import Held

FORWARD, RIGHT, BOTH = frozenset({"forward"}), frozenset({"turn_right"}), frozenset({"forward", "turn_right"})


def test_several_keys_are_held_at_once():
    held = Held()
    held.press("w", FORWARD)
    held.press("right", RIGHT)
    assert held.sample().buttons == BOTH
    held.release("w")
    assert held.sample().buttons == RIGHT


def test_a_tap_between_two_ticks_counts_for_one_tick():
    held = Held()
    held.press("w", FORWARD)
    held.release("w")
    assert held.sample().buttons == FORWARD
    assert held.sample().buttons == frozenset()


def test_a_button_is_held_until_the_last_of_its_keys_goes_up():
    held = Held()
    held.press("w", FORWARD)
    held.press("up", FORWARD)
    held.sample()
    held.release("w")
    assert held.sample().buttons == FORWARD
    held.release("up")
    assert held.sample().buttons == frozenset()


def test_releasing_all_releases_all_but_loses_no_tap():
    held = Held()
    held.press("w", FORWARD)
    held.sample()
    held.press("right", RIGHT)
    held.release_all()
    assert held.sample().buttons == RIGHT
    assert held.sample().buttons == frozenset()


def test_nothing_has_happened_before_anything_did():
    held = Held()
    assert held.changed_at is None
    held.release("w")  # what is up already
    held.release_all()
    assert held.sample().buttons == frozenset()
    assert held.changed_at is None


def test_the_moment_at_which_all_is_released_is_remembered_as_any_other():
    seconds = iter([1.0, 2.0])
    held = Held(now=lambda: next(seconds))
    held.press("w", FORWARD)
    held.sample()
    held.release_all()
    assert held.sample().buttons == frozenset()
    assert held.changed_at == 2.0


def test_pressing_what_is_down_changes_nothing():
    seconds = iter([1.0, 2.0])
    held = Held(now=lambda: next(seconds))
    held.press("w", FORWARD)
    held.sample()
    held.press("w", FORWARD)  # key repeat
    held.sample()
    assert held.changed_at is None


def test_the_newest_event_of_a_sample_is_remembered_once():
    seconds = iter([1.0, 2.0])
    held = Held(now=lambda: next(seconds))
    held.press("w", FORWARD)
    held.release("w")
    held.sample()
    assert held.changed_at == 2.0
    held.sample()
    assert held.changed_at is None


@given(st.lists(st.one_of(st.none(), st.tuples(st.booleans(), st.integers(0, 4)))))
def test_every_press_is_seen_by_the_next_sample(events):
    """`None` samples; the others press (true) or release one of five keys, each its own button."""
    held = Held()
    down: set[int] = set()
    pressed: set[int] = set()
    for event in [*events, None]:
        if event is None:
            assert held.sample().buttons == {str(key) for key in down | pressed}
            pressed.clear()
        elif event[0]:
            pressed |= {event[1]} - down
            down.add(event[1])
            held.press(event[1], frozenset({str(event[1])}))
        else:
            down.discard(event[1])
            held.release(event[1])
