"""A server with a door for browsers, in this process or in one of its own, and a headless browser."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.render.web.access import WebAddress
from playhead.render.web.door import WebDoor
from playhead.scenes.scene import load_scene

ROOT = Path(__file__).parents[3]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NEEDED = "a headless Chromium and its chromedriver play the page"
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
    "--force-device-scale-factor=1", "--window-size=1000,760",
)  # fmt: skip


@contextmanager
def serving_pages(
    world, *scenes, limits: Limits | None = None, recordings: Path | None = None, **address
) -> Iterator[tuple[Server, WebDoor]]:
    """A server without ZeroMQ, and its door at a free port of this machine."""
    registry = Registry(
        [world], [load_scene(scene) if isinstance(scene, Path) else scene for scene in scenes]
    )
    server = Server(registry, None, limits=limits, recordings=recordings)
    door = WebDoor(server, registry, WebAddress("127.0.0.1", 0, **address), limits)
    thread = serve_in_background(server)
    door.start()
    try:
        yield server, door
    finally:
        server.stop()
        thread.join(20)
        door.stop(20)
        assert not thread.is_alive()


@contextmanager
def serve_pages(world: Path, scene: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`main.py web` in a process of its own. Yields it and its link."""
    command = [sys.executable, "main.py", "web", "--no-open", "--world", str(world), "--scene", str(scene)]
    process = subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert " at " in line, process.stderr.read() if process.poll() is not None else line
        yield process, line.split(" at ")[1].strip()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


class Tab:
    """A tab of the browser with the page in it: keys are pressed for real, pixels are the canvas's."""

    def __init__(self, driver, link: str) -> None:
        self.driver = driver
        driver.switch_to.new_window("tab")
        self.handle = driver.current_window_handle
        driver.get(link)

    def run(self, script: str, *values):
        self.driver.switch_to.window(self.handle)
        return self.driver.execute_script(script, *values)

    def wait(self, look: Callable[[], object], what: str, seconds: float = 30):
        until = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < until, f"{what} did not happen: {self.note!r} {self.data}"
            time.sleep(0.02)
        return found

    @property
    def data(self) -> dict[str, str]:
        """What the page says of its session: `tick`, `session`, `control`."""
        return self.run("return {...document.body.dataset}")

    @property
    def note(self) -> str:
        return self.run("return document.getElementById('note')?.textContent ?? ''")

    @property
    def state(self) -> str:
        return self.run("return document.getElementById('state').innerText")

    @property
    def figures(self) -> dict[str, str]:
        """What the HUD shows."""
        cells = self.run("return [...document.getElementById('hud').children].map((e) => e.textContent)")
        return dict(zip(cells[::2], cells[1::2], strict=True))

    @property
    def tick(self) -> int:
        return int(self.data.get("tick") or -1)

    def begin(self) -> "Tab":
        """Waits until it plays."""
        self.wait(lambda: self.data.get("session") and self.tick > 0, "the first tick")
        return self

    def pixels(self) -> np.ndarray:
        """The canvas, uint8 `(H, W, 3)`."""
        width, height, data = self.run(
            "const c = document.getElementById('picture');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return [c.width, c.height, btoa(Array.from(d, (v) => String.fromCharCode(v)).join(''))];"
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3].copy()

    def keys(self, *words: tuple[str, str] | str) -> None:
        """`("down", key)`, `("up", key)`, or a key that goes down and up."""
        from selenium.webdriver import ActionChains

        self.driver.switch_to.window(self.handle)
        chain = ActionChains(self.driver, duration=0)
        for word in words:
            if isinstance(word, str):
                chain.key_down(word).key_up(word)
            elif word[0] == "down":
                chain.key_down(word[1])
            else:
                chain.key_up(word[1])
        chain.perform()

    def pause(self, loop) -> None:
        """Presses `p`, until the session of that loop stands still; the page says so sooner."""
        self.keys("p")
        self.wait(lambda: "paused" in self.state and loop.stats.paused, "the pause")

    def click(self, word: str) -> None:
        """Presses the button of that word above the picture."""
        self.driver.switch_to.window(self.handle)
        for button in self.driver.find_elements("css selector", "#toolbar button"):
            if button.text == word:
                button.click()
                return
        raise AssertionError(f"there is no button {word}")

    def errors(self) -> list[str]:
        """What the browser complained of on this page."""
        self.driver.switch_to.window(self.handle)
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium; skipped with a reason where there is none, which .ci/run does not let be."""
    if BROWSER is None or DRIVER is None:
        assert not os.environ.get("PLAYHEAD_CI"), f"{NEEDED}, and one of them is not here"
        pytest.skip(NEEDED)
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    downloads = tmp_path_factory.mktemp("downloads")
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = downloads
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def open_tab(browser) -> Iterator[Callable[[str], Tab]]:
    """Opens links, each in a tab of its own; closes them in the end."""
    first = browser.current_window_handle
    tabs: list[Tab] = []

    def open_tab(link: str) -> Tab:
        tabs.append(Tab(browser, link))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        browser.switch_to.window(tab.handle)
        browser.close()
    browser.switch_to.window(first)
