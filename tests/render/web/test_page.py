"""The page, played in a real browser by real keys."""

import signal
import time

import numpy as np
import pytest

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.schema import chain
from playhead.engine.recording.tree import Point
from playhead.engine.session import Session
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import wait_for
from tests.render.web.conftest import serve_pages, serving_pages

pytestmark = pytest.mark.usefixtures("browser")
LEFT, RIGHT, F1, ESCAPE, ENTER, TAB = "\ue012", "\ue014", "\ue031", "\ue00c", "\ue007", "\ue004"


@pytest.fixture(scope="module")
def served(tiny_world, tiny_scene, tmp_path_factory):
    with serving_pages(tiny_world, tiny_scene, recordings=tmp_path_factory.mktemp("recordings")) as found:
        yield found


def session_of(server, tab):
    return server.sessions.find(tab.data["session"])


def replayed(ticks, world) -> list[np.ndarray]:
    """The frames of a script of these ticks' actions."""
    session = Session(world, make_tiny_context(), SEED)
    return [session.step(tick.action) for tick in ticks]


def test_keys_are_held_from_press_to_release_and_the_hashes_are_those_of_a_script(
    served, open_tab, tiny_world
):
    server, door = served
    tab = open_tab(door.link).begin()
    timeline = session_of(server, tab).loop.timeline
    tab.keys(("down", "w"))
    tab.wait(lambda: "forward" in tab.run("return document.getElementById('held').innerText"), "the HUD")
    tab.keys(("down", LEFT))
    began = tab.tick
    tab.wait(lambda: tab.tick > began + 5, "some ticks")
    tab.keys(("up", "w"), ("up", LEFT), "e")
    tab.wait(lambda: tab.tick > began + 12, "some more")
    tab.pause(session_of(server, tab).loop)
    timeline.recorder.flush()
    ticks = timeline.tree.path(timeline.head.branch)
    words = [tick.action.in_words() for tick in ticks]
    turns = words.index(("forward", "turn_left"))
    assert words.index(("forward",)) < turns
    assert words[turns : turns + 5] == [("forward", "turn_left")] * 5
    assert words.count(("use",)) == 1 and words[-1] == ()  # a tap counts for one tick, whenever that comes
    frames = replayed(ticks, tiny_world)
    before = chain(b"", Session(tiny_world, make_tiny_context(), SEED).frames)
    for tick, made in zip(ticks, frames, strict=True):
        assert tick.hash == chain(before, made)
        before = tick.hash
    # In a pause the frame is on the canvas, and not what an encoder made of it.
    tab.wait(lambda: np.array_equal(tab.pixels(), frames[-1][-1]), "the last frame")
    assert tab.errors() == []


def shift(before: np.ndarray, after: np.ndarray) -> int:
    """By how many pixels what is seen has gone to the right, at most a quarter of the width."""
    a, b = (picture.astype(float).mean((0, 2)) for picture in (before[40:110], after[40:110]))
    a, b = (np.diff(line) for line in (a, b))
    reach = len(a) // 4
    scores = {
        by: np.corrcoef(a[max(0, -by) : len(a) - max(0, by)], b[max(0, by) : len(b) + min(0, by)])[0, 1]
        for by in range(-reach, reach)
    }
    return max(scores, key=scores.get)


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_the_view_turns_with_the_arrows(open_tab, codec):
    """The shipped world: what is seen goes right as the player turns left, and the other way round."""
    world = World.load("freedoom", "cpu")
    with serving_pages(world, load_scene("red-circle")) as (_, door):
        tab = open_tab(f"{door.link}?codec={codec}").begin()
        tab.wait(lambda: codec in tab.figures.get("decode", ""), "the codec")
        gone = {}
        for key in (LEFT, RIGHT):
            tab.keys("r")
            tab.wait(lambda: 0 <= tab.tick < 4, "the restart")
            tab.keys(("down", key))
            shifts, last, tick = [], tab.pixels(), tab.tick
            while len(shifts) < 8:
                tab.wait(lambda tick=tick: tab.tick > tick, "a tick")
                tick, picture = tab.tick, tab.pixels()
                shifts.append(shift(last, picture))
                last = picture
            tab.keys(("up", key))
            gone[key] = np.median(shifts)
        assert gone[LEFT] > 0 > gone[RIGHT], gone


def test_a_key_that_is_held_goes_back_and_play_goes_on_from_there_on_a_branch(served, open_tab, tiny_world):
    server, door = served
    tab = open_tab(door.link).begin()
    timeline = session_of(server, tab).loop.timeline
    tab.wait(lambda: tab.tick > 30, "some ticks")
    tab.keys(("down", "z"))
    tab.wait(lambda: not tab.run("return document.getElementById('strip').hidden"), "the strip")
    words = "return document.getElementById('strip-words').textContent"
    tab.wait(lambda: int(tab.run(words).split("tick ")[1].split()[0]) < 20, "the way back")
    assert tab.run("return document.querySelectorAll('#strip-pictures canvas').length") > 0
    end = timeline.head
    tab.keys(("up", "z"))
    tab.wait(lambda: tab.run("return document.getElementById('strip').hidden"), "the end of it")
    tab.wait(lambda: len(timeline.branches) == 2, "the branch")
    first = timeline.branches[1].first
    assert 0 <= first < 20 and timeline.branches[0].last == end.tick
    tab.wait(lambda: timeline.head.tick > first + 3, "more ticks")
    tab.pause(session_of(server, tab).loop)
    timeline.recorder.flush()
    ticks = timeline.tree.path(2)
    frames = replayed(ticks, tiny_world)
    assert ticks[-1].hash == chain(ticks[-2].hash, frames[-1])


def test_a_bookmark_is_named_listed_and_gone_back_to(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    timeline = session_of(server, tab).loop.timeline
    tab.keys("b")
    tab.wait(lambda: tab.run("return document.getElementById('naming').open"), "the question")
    tab.keys(*"ledge", ENTER)
    tab.wait(lambda: timeline.bookmarks, "the bookmark")
    (mark,) = timeline.bookmarks
    assert mark.name == "ledge"
    tab.wait(lambda: tab.tick > mark.point.tick + 5, "more ticks")
    tab.keys("m")
    tab.wait(lambda: tab.run("return document.getElementById('moments').open"), "the list")
    assert "ledge" in tab.run("return document.getElementById('moment-list').innerText")
    tab.run("document.querySelector('#moment-list button').focus()")
    tab.keys(ENTER)
    tab.wait(lambda: len(timeline.branches) == 2, "the branch")
    assert timeline.branches[1].parent == Point(1, mark.point.tick)


def test_pace_scene_and_seed_are_chosen_by_keys(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    loop = session_of(server, tab).loop
    tab.keys("-")
    tab.wait(lambda: loop.stats.speed == 0.5, "slow motion")
    tab.keys("=", "=")
    tab.wait(lambda: loop.stats.speed == 2, "twice the pace")
    tab.keys("[")
    tab.wait(lambda: loop.stats.steps == 1, "fewer steps")
    tab.keys("p")
    tab.wait(lambda: loop.stats.paused, "the pause")
    tick = loop.stats.tick
    tab.keys(("down", "d"), ".", ("up", "d"))
    tab.wait(lambda: tab.tick == tick + 1, "a single tick")
    assert loop.timeline.tree.path(1)[-1].action == Action(frozenset({"strafe_right"}))
    tab.keys("n")
    tab.wait(lambda: loop.stats.seed != SEED, "another seed")
    tab.click("Scenes")
    tab.wait(lambda: tab.run("return document.getElementById('scenes').open"), "the list")
    tab.run("document.getElementById('seed').value = '18446744073709551615'")
    tab.run("document.querySelector('[data-scene=tiny-scene]').click()")
    tab.wait(lambda: loop.stats.seed == 2**64 - 1, "the typed seed")
    tab.wait(lambda: tab.figures["seed"] == "18446744073709551615", "all its digits")
    assert tab.run("return document.querySelector('#scene-list img').naturalWidth") == 64


def test_the_page_is_used_by_keyboard_alone_and_keys_of_a_dialog_are_not_the_worlds(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    acts = session_of(server, tab).loop.timeline
    tab.keys(F1)
    tab.wait(lambda: tab.run("return document.getElementById('help').open"), "the help")
    said = tab.run("return document.getElementById('help-keys').innerText")
    assert "pause and go on" in said and "turn left" in said
    tab.keys("w", ESCAPE)
    tab.wait(lambda: not tab.run("return document.getElementById('help').open"), "the end of the help")
    assert tab.run("return document.activeElement.id") == "stage"
    tab.run("document.querySelector('#toolbar button').focus()")
    tab.keys(TAB)
    assert tab.run("return document.activeElement.textContent") == "Restart"
    tick = tab.tick
    tab.wait(lambda: tab.tick > tick + 3, "more ticks")
    assert all(action.idle for action in (t.action for t in acts.tree.path(1)))
    tab.keys(ENTER)
    tab.wait(lambda: tab.tick < tick, "the restart")
    wide = "return document.documentElement.scrollWidth <= innerWidth"
    tab.run("document.documentElement.style.fontSize = '200%'")
    assert tab.run(wide), "at 200 % something lies beside the page"


def test_one_page_watches_asks_for_the_control_and_is_handed_it(served, open_tab):
    server, door = served
    player = open_tab(door.link).begin()
    watcher = open_tab(f"{door.link}#watch={player.data['session']}").begin()
    assert watcher.data["control"] != "mine" and player.data["control"] == "mine"
    lease = session_of(server, player).lease
    watcher.keys("w")
    time.sleep(0.2)
    watcher.keys("g")
    player.wait(lambda: "asks for the control" in player.state, "the question")
    player.keys("g")
    watcher.wait(lambda: watcher.data["control"] == "mine", "the control")
    assert lease.holder != lease.owner
    watcher.keys(("down", "w"))
    timeline = session_of(server, player).loop.timeline
    held = Action(frozenset({"forward"}))
    watcher.wait(lambda: timeline.tree.path(1)[-1].action == held, "what the other one holds")
    player.keys("g")
    player.wait(lambda: player.data["control"] == "mine", "the owner's control")
    player.wait(lambda: timeline.tree.path(1)[-1].action == Action(), "all let go of")


def test_the_recording_that_is_downloaded_is_what_was_played(served, open_tab, browser):
    server, door = served
    tab = open_tab(door.link).begin()
    timeline = session_of(server, tab).loop.timeline
    tab.pause(session_of(server, tab).loop)
    tab.click("Recording")
    (file,) = tab.wait(lambda: list(browser.downloads.glob("*.playhead")), "the file")
    recording = Recording.read(file)
    assert [t.hash for t in recording.tree.path(1)] == [t.hash for t in timeline.tree.path(1)]
    assert not list(timeline.recorder.path.parent.glob("*.copy"))


def test_the_film_that_is_downloaded_shows_what_was_played(served, open_tab, browser, tiny_world):
    import av

    server, door = served
    tab = open_tab(door.link).begin()
    timeline = session_of(server, tab).loop.timeline
    tab.keys(("down", "w"))
    tab.wait(lambda: tab.tick > 20, "some ticks")
    tab.keys(("up", "w"))
    tab.pause(session_of(server, tab).loop)
    tab.click("Film")
    (file,) = tab.wait(lambda: list(browser.downloads.glob("*.mp4")), "the file")
    with av.open(str(file)) as film:
        assert abs(float(film.streams.video[0].average_rate) - 17.5) < 0.01
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    frames = replayed(timeline.tree.path(1), tiny_world)
    assert len(pictures) == len(frames)
    for at in (5, -1):  # H.264 blurs a picture of noise, but not into another one
        near = [np.abs(pictures[at].astype(int) - frame[-1]).mean() for frame in frames]
        assert np.argmin(near) == at % len(frames)
    assert not list(timeline.recorder.path.parent.glob("*.copy"))


def test_a_screenshot_is_the_frame_as_it_was_dreamed(served, open_tab, browser, tiny_world):
    import pygame

    server, door = served
    tab = open_tab(door.link).begin()
    tab.pause(session_of(server, tab).loop)
    ticks = session_of(server, tab).loop.timeline.tree.path(1)
    tab.keys("c")
    (file,) = tab.wait(lambda: list(browser.downloads.glob("*.png")), "the file")
    picture = pygame.surfarray.array3d(pygame.image.load(file)).swapaxes(0, 1)
    assert np.array_equal(picture, replayed(ticks, tiny_world)[-1][-1])


def test_a_page_comes_back_to_its_session(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    session = tab.data["session"]
    tab.driver.refresh()
    tab.begin()
    assert tab.data["session"] == session and tab.data["control"] == "mine"
    lease = server.sessions.find(session).lease
    tab.driver.get("about:blank")
    wait_for(lambda: not lease.holder)  # who is elsewhere lets others play, whatever the browser keeps
    tab.driver.back()
    tab.begin()
    assert tab.data["session"] == session
    tab.wait(lambda: tab.data["control"] == "mine", "the control")
    tick = tab.tick
    tab.wait(lambda: tab.tick > tick + 3, "more ticks")


def test_after_the_server_was_killed_and_started_again_the_page_plays_its_scene_and_seed(
    tiny_world_folder, tiny_scene, open_tab
):
    with serve_pages(tiny_world_folder, tiny_scene, "--bind", "127.0.0.1:*") as (process, link):
        tab = open_tab(link).begin()
        tab.keys("n")
        tab.wait(lambda: tab.figures.get("seed", str(SEED)) != str(SEED), "another seed")
        seed = tab.figures["seed"]
        session = tab.data["session"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        tab.wait(lambda: "no connection" in tab.run("return document.body.innerText"), "the loss")
        with serve_pages(tiny_world_folder, tiny_scene, "--bind", link.split("/")[2]):
            tab.begin()
            assert tab.data["session"] != session
            assert tab.figures["seed"] == seed
            before = tab.tick
            tab.wait(lambda: tab.tick > before, "more ticks")


def test_a_page_for_which_there_is_no_room_says_so_and_plays_once_there_is(tiny_world, tiny_scene, open_tab):
    with serving_pages(tiny_world, tiny_scene, limits=Limits(sessions=1)) as (server, door):
        first = open_tab(door.link).begin()
        second = open_tab(door.link)
        second.wait(lambda: "which is all" in second.state, "the refusal")
        hosted = session_of(server, first)
        first.driver.switch_to.window(first.handle)
        first.driver.get("about:blank")  # else it would be the first to open another one
        wait_for(lambda: not hosted.lease.holder)
        server.post(lambda: server.sessions.end(hosted, "it is over"))
        second.begin()
        assert "which is all" not in second.state and second.data["control"] == "mine"
