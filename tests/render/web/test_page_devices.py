"""What else holds buttons on the page, and browsers that lack something."""

import time

import pytest
from selenium.webdriver import ActionChains

from playhead.world.action import Action
from tests.render.web.conftest import serving_pages

pytestmark = pytest.mark.usefixtures("browser")
PAD = """
const buttons = Array.from({ length: 17 }, () => ({ pressed: false }));
const pad = { mapping: "standard", buttons, axes: [0, 0, 0, 0] };
globalThis.pad = pad;
navigator.getGamepads = () => [pad, null];
dispatchEvent(new Event("gamepadconnected"));
"""


@pytest.fixture(scope="module")
def served(tiny_world, tiny_scene, tmp_path_factory):
    with serving_pages(tiny_world, tiny_scene, recordings=tmp_path_factory.mktemp("recordings")) as found:
        yield found


def held_in(server, tab):
    """What was held at each tick so far."""
    timeline = server.sessions.find(tab.data["session"]).loop.timeline
    return [tick.action for tick in timeline.tree.path(1)]


def held(*names: str) -> Action:
    return Action(frozenset(names))


def test_buttons_for_fingers_hold_for_as_long_as_they_are_touched(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    tab.click("Touch")
    button = tab.driver.find_element("css selector", "[data-hold=turn_left]")
    ActionChains(tab.driver).click_and_hold(button).perform()
    tab.wait(lambda: held_in(server, tab).count(held("turn_left")) > 4, "the turn")
    ActionChains(tab.driver).release().perform()
    tab.wait(lambda: held_in(server, tab)[-1] == held(), "the end of it")
    tab.wait(lambda: tab.tick > 20, "some ticks")
    back = tab.driver.find_element("css selector", "[data-hold=scrub_back]")
    ActionChains(tab.driver).click_and_hold(back).perform()
    tab.wait(lambda: not tab.run("return document.getElementById('strip').hidden"), "the strip")
    time.sleep(0.8)
    ActionChains(tab.driver).release().perform()
    timeline = server.sessions.find(tab.data["session"]).loop.timeline
    tab.wait(lambda: len(timeline.branches) == 2, "the branch")
    tab.click("Touch")
    assert not button.is_displayed()


def test_a_gamepad_holds_what_the_key_map_says(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    tab.run(PAD)
    tab.run("pad.axes[1] = -0.9; pad.buttons[0].pressed = true")
    tab.wait(lambda: held_in(server, tab)[-1] == held("forward", "attack"), "the stick and the button")
    tab.run("pad.axes[1] = 0; pad.buttons[0].pressed = false; pad.buttons[14].pressed = true")
    tab.wait(lambda: held_in(server, tab)[-1] == held("turn_left"), "the cross")
    tab.run("pad.buttons[14].pressed = false")
    tab.wait(lambda: held_in(server, tab)[-1] == held(), "nothing")


def test_what_is_held_is_let_go_of_when_the_page_loses_the_keys(served, open_tab):
    server, door = served
    tab = open_tab(door.link).begin()
    tab.keys(("down", "w"))
    tab.wait(lambda: held_in(server, tab)[-1] == held("forward"), "the walk")
    tab.run("document.querySelector('#toolbar button').focus()")
    tab.wait(lambda: held_in(server, tab)[-1] == held(), "the end of it")
    tab.keys(("up", "w"))


def test_a_browser_without_webcodecs_gets_jpegs(served, open_tab, browser):
    _, door = served
    without = {"source": "delete globalThis.VideoDecoder;"}
    tab = open_tab("about:blank")
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", without)
    browser.get(door.link)
    tab.begin()
    tab.wait(lambda: "jpeg" in tab.figures.get("decode", ""), "the encoding")
    tick = tab.tick
    tab.wait(lambda: tab.tick > tick + 5, "more ticks")


def test_of_two_tabs_with_one_memory_the_later_has_the_session(served, open_tab):
    _, door = served
    first = open_tab(door.link).begin()
    memory = first.run("return {...sessionStorage}")
    second = open_tab(door.link)
    second.run(
        "for (const [key, value] of Object.entries(arguments[0])) sessionStorage.setItem(key, value)", memory
    )
    second.driver.refresh()
    second.begin()
    assert second.data["session"] == memory["session"] and second.data["control"] == "mine"
    first.wait(lambda: "in another tab" in first.state, "the sentence")
    tick = second.tick
    second.wait(lambda: second.tick > tick + 20, "more ticks")
    assert second.data["control"] == "mine" and "in another tab" in first.state
    first.driver.switch_to.window(first.handle)
    first.driver.refresh()
    first.begin()
    second.wait(lambda: "in another tab" in second.state, "the sentence there")
