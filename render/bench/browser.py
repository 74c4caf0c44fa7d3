"""What the page costs: from a key to the frame that obeys it, beyond the tick; and what watchers cost.

The keys are real ones of a headless Chromium, and so are the pixels. Watchers are a process of their own that
takes every tick and says that it is drawn.
"""

import asyncio
import contextlib
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Semaphore
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

from playhead.engine.bridge.process import MOMENT
from playhead.engine.bridge.server.hosted import HostedSession
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire.protocol import ActRequest, HelloRequest
from playhead.engine.stats import WINDOW
from playhead.engine.tick import Tick
from playhead.render.bench.bridge import WatchedPhase
from playhead.render.web.access import WebAddress
from playhead.render.web.door import WebDoor
from playhead.render.web.page_messages import SeenRequest, WatchRequest, decode_page_tick, encode_for_page
from playhead.scenes.scene import Scene
from playhead.world.errors import PlayheadError
from playhead.world.extras import install
from playhead.world.world import World

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
COLLECT = """
globalThis.keyed = [];
document.addEventListener("keyed", ({ detail }) => keyed.push(detail));
"""
PATIENCE = 60.0
"""Seconds to wait for what has to happen."""


@dataclass(frozen=True)
class KeyTimes:
    """Seconds for each change of keys: from the key to the drawn frame, and what of that was not the server's
    part, from the act's arrival to the frame that obeys it. `rate`: ticks drawn a second; `codec` as it was.
    """

    whole: list[float]
    beyond: list[float]
    rate: float
    codec: str


@contextlib.contextmanager
def page_door(world: World, scene: Scene) -> Iterator[tuple[Server, WebDoor]]:
    """A server of one world in this process, with a door at a free port."""
    sys.setswitchinterval(MOMENT)  # as `web` has it
    registry = Registry([world], [scene])
    server = Server(registry, None)
    door = WebDoor(server, registry, WebAddress("127.0.0.1", 0))
    thread = serve_in_background(server)
    door.start()
    try:
        yield server, door
    finally:
        server.stop()
        thread.join()
        door.stop()


@contextlib.contextmanager
def headless() -> "Iterator[Chrome]":
    """A Chromium without a window. Raises PlayheadError where there is none."""
    try:
        from selenium.webdriver import Chrome
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        raise PlayheadError(f"the browser is driven by Selenium: {install('dev')}") from None
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        raise PlayheadError("this needs chromium and chromedriver; Debian has both as chromium-driver")
    options = Options()
    options.binary_location = browser
    for option in OPTIONS:
        options.add_argument(option)
    made = Chrome(options=options, service=Service(driver))
    try:
        yield made
    finally:
        made.quit()


def bench_keys(server: Server, door: WebDoor, browser: "Chrome", presses: int, codec: str) -> KeyTimes:
    """Presses a key so many times for a moment each, at no particular time of a tick."""
    browser.get(f"{door.link}?codec={codec}")
    session = str(_wait(browser, "return document.body.dataset.session"))
    hosted = next(found for found in server.sessions if found.id == session)
    arrived, ready = _note_times(hosted)
    browser.execute_script(COLLECT)
    tick, began, draw = _tick(browser), time.perf_counter(), random.Random(0)
    for _ in range(presses):
        for kind in ("keyDown", "keyUp"):
            key = {"type": kind, "key": "w", "code": "KeyW", "text": "w" if kind == "keyDown" else ""}
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", key)
            time.sleep(draw.uniform(1, 3) * hosted.world.config.ticks_per_second**-1)
    rate = (_tick(browser) - tick) / (time.perf_counter() - began)
    found: list[dict[str, Any]] = browser.execute_script("return keyed")
    used = str(browser.execute_script("return document.getElementById('hud').textContent"))
    times = [
        (act["took"] / 1000, act["took"] / 1000 - (ready[act["tick"]] - arrived[act["id"]]))
        for act in found
        if act["id"] in arrived and act["tick"] in ready
    ]
    if not times:
        raise PlayheadError("no key came to a frame; try again")
    shown = "h264" if "ms h264" in used else "jpeg"
    return KeyTimes([whole for whole, _ in times], [beyond for _, beyond in times], rate, shown)


def _note_times(hosted: HostedSession) -> tuple[dict[int, float], dict[int, float]]:
    """When acts come in, by their id, and when frames are there, by their tick, from now on."""
    arrived: dict[int, float] = {}
    ready: dict[int, float] = {}
    act = hosted.acts.act

    def note(client: str, request: ActRequest) -> list[tuple[str, ActRequest]]:
        arrived[request.id] = time.perf_counter()
        return act(client, request)

    def see(tick: Tick) -> None:
        ready[tick.number] = tick.timing.ready

    setattr(hosted.acts, "act", note)  # noqa: B010 - of this one alone
    hosted.loop.subscribe(see)
    return arrived, ready


def _tick(browser: "Chrome") -> int:
    return int(browser.execute_script("return document.body.dataset.tick"))


def _wait(browser: "Chrome", script: str) -> object:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := browser.execute_script(script):
            return found
        time.sleep(0.02)
    raise PlayheadError("the page did not begin to play; try again")


def bench_watching_pages(
    server: Server, door: WebDoor, session: str, counts: Sequence[int], ticks: int
) -> Iterator[WatchedPhase]:
    """Has a session that a page plays watched by each of these numbers of others, for so many ticks each."""
    for count in counts:
        with _watched(door.link, session, count):
            yield _count(server, session, count, ticks)


def _count(server: Server, session: str, watchers: int, ticks: int) -> WatchedPhase:
    """Adds up the statistics of so many ticks, at most a window of them at a time."""
    loop = server.sessions.find(session).loop
    missed = counted = 0
    p50 = p99 = 0.0
    last = loop.stats.tick if loop.stats else 0
    while counted < ticks:
        time.sleep(0.02)
        stats = loop.stats
        if stats is None or stats.tick - last < min(ticks, WINDOW):
            continue
        last = stats.tick
        missed, counted = missed + stats.missed, counted + stats.counted
        p50, p99 = stats.tick_p50 or 0.0, max(p99, stats.tick_p99 or 0.0)
    return WatchedPhase(watchers, missed, counted, p50, p99)


@contextlib.contextmanager
def _watched(link: str, session: str, count: int) -> Iterator[None]:
    """So many watchers of a live session, all of which have seen it by now."""
    spawn = multiprocessing.get_context("spawn")
    seen = spawn.Semaphore(0)
    process = spawn.Process(target=_watch_all, args=(link, session, count, seen), daemon=True)
    process.start()
    try:
        for _ in range(count):
            while not seen.acquire(timeout=0.1):
                if not process.is_alive():
                    raise PlayheadError("the watchers of the benchmark ended early; try again")
        yield
    finally:
        process.terminate()
        process.join()


def _watch_all(link: str, session: str, count: int, seen: Semaphore) -> None:
    asyncio.run(_watch_together(link, session, count, seen))


async def _watch_together(link: str, session: str, count: int, seen: Semaphore) -> None:
    await asyncio.gather(*(_watch_one(link, session, seen) for _ in range(count)))


async def _watch_one(link: str, session: str, seen: Semaphore) -> None:
    host = link.split("/")[2]
    async with connect(f"ws://{host}/play", origin=f"http://{host}", proxy=None) as line:  # type: ignore[arg-type]
        await line.send(encode_for_page(HelloRequest(id=1, protocol=[1], client="watcher")))
        await line.send(encode_for_page(WatchRequest(id=2, session=session, codec="h264")))
        await _take(line, seen)


async def _take(line: ClientConnection, seen: Semaphore) -> None:
    first = True
    async for data in line:
        if isinstance(data, bytes):
            header = decode_page_tick(data)
            await line.send(encode_for_page(SeenRequest(number=header.number)))
            if first:
                seen.release()
            first = False
