"""The forms in a real headless browser: the live page beside them, a film, and a picture to play on from."""

import json
import time

import pytest

from tests.render.demo.conftest import png, serving_forms
from tests.render.web.conftest import browser  # noqa: F401  (a fixture)

LIVE = "document.querySelector('#live iframe').contentDocument.body.dataset"


@pytest.fixture
def page(browser, tiny_world, tiny_scene):  # noqa: F811
    """The server, and the browser with its page in it."""
    with serving_forms(tiny_world, tiny_scene) as (server, door):
        browser.get_log("browser")
        browser.get(door.link)
        yield server, door, browser
        browser.get("about:blank")


def wait(driver, script: str, what: str, seconds: float = 60):
    """Waits until a script returns something, and returns that."""
    until = time.monotonic() + seconds
    while True:
        try:
            found = driver.execute_script(f"try {{ return {script} }} catch {{ return null }}")
        except Exception as error:  # the page is being replaced
            found = None if time.monotonic() < until else error
        if found:
            return found
        assert time.monotonic() < until, f"{what} did not come: {driver.get_log('browser')}"
        time.sleep(0.05)


def press(driver, words: str, kind: str = "button") -> None:
    """Presses the button of those words."""
    find = f"[...document.querySelectorAll('{kind}')].find((b) => b.innerText.trim() === {json.dumps(words)})"
    wait(driver, find, f"the button {words}").click()


def complaints(driver) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def loaded(driver) -> set[str]:
    """The sites that the page and the one within it have loaded anything from."""
    script = """
        const windows = [window, document.querySelector('#live iframe').contentWindow];
        const names = windows.flatMap((w) => w.performance.getEntries().map((e) => e.name));
        return names.filter((name) => /^(https?|wss?):/.test(name));
    """
    return {name.split("/")[2] for name in driver.execute_script(script)}


def test_a_script_is_typed_and_its_film_seen_beside_the_live_page(page):
    server, door, driver = page
    wait(driver, f"+{LIVE}.tick > 1", "the live page")
    box = wait(driver, "document.querySelector('textarea')", "the script")
    driver.execute_script("arguments[0].select()", box)
    box.send_keys("w*6 turn_left*4")
    press(driver, "Film it")
    film = "document.querySelector('video')"
    wait(driver, f"{film}.readyState >= 2 && {film}.videoWidth === 64", "the film")
    assert driver.execute_script(f"return {film}.duration") == pytest.approx(11 / 17.5, abs=0.03)
    bar = driver.execute_script("const p = document.querySelector('#bar progress'); return [p.value, p.max]")
    assert bar == [10, 10]
    assert "hash" in driver.find_element("css selector", "body").text
    assert loaded(driver) == {f"127.0.0.1:{door.address.port}"}
    assert complaints(driver) == []
    assert len(server.sessions) == 1  # that of the live page


def test_a_picture_is_dropped_and_played_from_in_the_live_page(page, tmp_path):
    server, _, driver = page
    before = wait(driver, f"+{LIVE}.tick > 1 && {LIVE}.session", "the live page")
    (tmp_path / "a picture.png").write_bytes(png())
    press(driver, "Start from a picture", "[role=tab]")
    field = wait(
        driver, "document.querySelector('input[type=file][accept*=image]')", "where to choose a file"
    )
    field.send_keys(str(tmp_path / "a picture.png"))
    shown = "[...document.querySelectorAll('img')].find((i) => i.src.includes('gradio_api/file='))"
    wait(driver, f"{shown}.naturalWidth === 80", "the picture")
    press(driver, "Play from it")
    wait(driver, f"{LIVE}.session && {LIVE}.session !== '{before}' && +{LIVE}.tick > 1", "the scene")
    frame = "document.querySelector('#live iframe').contentDocument"
    assert driver.execute_script(f"return {frame}.getElementById('title').textContent") == "From a picture"
    assert driver.execute_script(f"return {LIVE}.control") == "mine"
    (only,) = server.sessions  # the one that was played before is closed
    assert only.id == driver.execute_script(f"return {LIVE}.session")
    assert complaints(driver) == []


def test_a_link_to_a_session_that_is_over_leads_to_the_one_that_was_played(page):
    server, _, driver = page
    before = wait(driver, f"+{LIVE}.tick > 1 && {LIVE}.session", "the live page")
    frame = "document.querySelector('#live iframe')"
    driver.execute_script(f"{frame}.contentWindow.old = true; {frame}.src = '/#play=nothing'")
    mine = f"{LIVE}.session === '{before}' && {LIVE}.control === 'mine'"
    wait(driver, f"!{frame}.contentWindow.old && +{LIVE}.tick > 1 && {mine}", "the session of before")
    assert [hosted.id for hosted in server.sessions] == [before]
