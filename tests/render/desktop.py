"""A desktop for tests: a display of Xvfb, a `play` on it, and xdotool at its keyboard."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pygame

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which something that should have happened is said not to happen."""
Seen = TypeVar("Seen")


def lacking() -> str:
    """What is missing here, as the reason of a skip; empty if nothing is, or where nothing may be."""
    missing = [tool for tool in ("Xvfb", "xdotool") if not shutil.which(tool)]
    return "" if "PLAYHEAD_CI" in os.environ else " and ".join(missing) and f"needs {' and '.join(missing)}"


def wait_for(look: Callable[[], Seen | None], what: str) -> Seen:
    """What `look` sees, as soon as that is not None."""
    for _ in range(int(PATIENCE / 0.02)):
        seen = look()
        if seen is not None:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen in {PATIENCE:g} s")


def middle(pixels: np.ndarray, scale: int, size: int = 64) -> np.ndarray:
    """The frame `(size, size, 3)` that is shown `scale` times enlarged in the middle of the window."""
    height, width, _ = pixels.shape
    top, left = (height - scale * size) // 2, (width - scale * size) // 2
    return pixels[top : top + scale * size : scale, left : left + scale * size : scale]


@contextmanager
def display() -> Iterator[str]:
    """An X display of 1280 x 800 that nobody sees. Yields its name."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


class Player:
    """A `play` in a process of its own, and somebody at its keyboard."""

    def __init__(self, screen: str, folder: Path, *options: str, command: str = "play") -> None:
        self.folder = folder
        self.env = {**os.environ, "DISPLAY": screen}
        self.env.pop("SDL_VIDEODRIVER", None)
        more = ["--screenshots", str(folder)] if command == "play" else []
        self.process = subprocess.Popen(
            [sys.executable, "main.py", command, *more, *options],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def window(self) -> str:
        """The window's number, once it is open; there is no window manager to give it the focus."""
        window = wait_for(self._find_window, "the window's opening")
        self.type("windowfocus", "--sync", window)
        return window

    def type(self, *command: str) -> str:
        done = subprocess.run(["xdotool", *command], env=self.env, capture_output=True, text=True)
        return done.stdout

    def press(self, *keys: str) -> None:
        assert self.window
        self.type("key", *keys)

    def resize(self, width: int, height: int) -> None:
        self.type("windowsize", "--sync", self.window, str(width), str(height))

    def screenshot(self, tick: int) -> np.ndarray:
        """Takes screenshots until one shows tick number `tick`: its pixels `(H, W, 3)`. Leaves no file."""
        return self._screenshot_where(lambda number: number == tick, f"tick {tick}")

    def screenshot_after(self, tick: int) -> np.ndarray:
        """The same of tick number `tick` or a later one."""
        return self._screenshot_where(lambda number: number >= tick, f"tick {tick} or a later one")

    def _screenshot_where(self, shows: Callable[[int], bool], what: str) -> np.ndarray:
        for _ in range(1000):
            self.press("F12")
            path = wait_for(self._find_screenshot, f"a screenshot of {what}")
            pixels = pygame.surfarray.array3d(pygame.image.load(path)).swapaxes(0, 1)
            path.unlink()
            if shows(int(path.stem.rpartition("-")[2])):
                return pixels
        raise AssertionError(f"{what} did not come")

    def step(self, tick: int) -> np.ndarray:
        """In a pause: plays one tick, which is number `tick`, and returns its screenshot."""
        self.press("period")
        return self.screenshot(tick)

    def end(self) -> tuple[int, str]:
        """Waits for the end. Returns the exit status and what was said on stderr."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said

    def _find_screenshot(self) -> Path | None:
        assert self.process.poll() is None, self.process.communicate()[1]
        return next(self.folder.glob("*.png"), None)

    def _find_window(self) -> str | None:
        assert self.process.poll() is None, self.process.communicate()[1]
        return self.type("search", "--onlyvisible", "--pid", str(self.process.pid)).strip() or None


@contextmanager
def playing(screen: str, folder: Path, *options: str, command: str = "play") -> Iterator[Player]:
    """A `play`, or another command with a window, that ends with the test at the latest."""
    player = Player(screen, folder, *options, command=command)
    try:
        yield player
    finally:
        if player.process.poll() is None:
            player.process.kill()
            player.process.communicate()
