"""The window: opens on the display, gives its events, and shows surfaces. Used by one thread only."""

import contextlib
import io
import os
import sys
from pathlib import Path

import pygame

from playhead.engine.display import lacks_display
from playhead.render.window.text import ACCENT, BACKGROUND, forget_fonts
from playhead.world.errors import PlayheadError

TITLE = "Playhead"
SMALLEST = (384, 240)
"""Below this the help could no longer be read."""
WAKE = pygame.event.custom_type()
"""An event that another thread posts to have the window look at what is new."""


class Window:
    """A resizable window of pygame. `screen` is the surface to draw on; it changes with the window's size."""

    def __init__(self, aspect: tuple[int, int], fullscreen: bool = False) -> None:
        """Opens with room for a picture of `aspect` `(width, height)` pixels, several times enlarged.

        Raises PlayheadError where there is no display to open on.
        """
        if lacks_display():
            raise _no_display("DISPLAY and WAYLAND_DISPLAY are not set")
        if sys.platform.startswith("linux"):
            # Else SDL shows surfaces through OpenGL, which without a GPU takes milliseconds from the world.
            os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
        try:
            pygame.display.init()
            size = _comfortable(aspect, pygame.display.get_desktop_sizes()[0])
            self._window = pygame.Window(TITLE, size, resizable=True, fullscreen_desktop=fullscreen)
            self._window.minimum_size = SMALLEST
            self._window.set_icon(_icon())
            self._fullscreen, self._captures_mouse = fullscreen, False
            self._window.get_surface()
        except pygame.error as error:
            raise _no_display(str(error)) from None
        pygame.mouse.set_visible(not fullscreen)
        pygame.font.init()

    @property
    def screen(self) -> pygame.Surface:
        return self._window.get_surface()

    def toggle_fullscreen(self) -> None:
        self._fullscreen = not self._fullscreen
        if self._fullscreen:
            self._window.set_fullscreen(desktop=True)
        else:
            self._window.set_windowed()
        pygame.mouse.set_visible(not self._fullscreen)
        if self._captures_mouse:
            self.capture_mouse()  # which a visible one would undo

    def capture_mouse(self) -> None:
        """Hides the mouse and keeps it in the window, so that its motion comes without an end."""
        self._captures_mouse = True
        self._window.grab_mouse = True
        pygame.mouse.set_relative_mode(True)

    def events(self, seconds: float) -> list[pygame.Event]:
        """Sleeps until there are events, at most so many seconds, and returns them all."""
        first = pygame.event.wait(max(1, round(seconds * 1000)))
        return [e for e in (first, *pygame.event.get()) if e.type != pygame.NOEVENT]

    def show(self) -> None:
        """Brings what was drawn to the display."""
        self._window.flip()

    def close(self) -> None:
        pygame.quit()
        forget_fonts()


def wake() -> None:
    """Wakes `Window.events`; may be called by any thread, also when the window is closed already."""
    with contextlib.suppress(pygame.error):
        pygame.event.post(pygame.Event(WAKE))


def save_screenshot(picture: pygame.Surface, folder: Path, name: str) -> Path:
    """Writes `folder`/`name`.png, or with a number behind the name where that is taken. Returns the path.

    Raises PlayheadError where nothing can be written.
    """
    path = folder / f"{name}.png"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.png"
    png = io.BytesIO()
    pygame.image.save(picture, png, path.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")  # whoever waits for the file finds it whole
        draft.write_bytes(png.getvalue())
        draft.replace(path)
    except OSError as error:
        raise PlayheadError(f"{path} cannot be written ({error}); choose another --screenshots") from None
    return path


def _no_display(reason: str) -> PlayheadError:
    return PlayheadError(
        f"there is no display to open a window on ({reason}); `web` plays in a browser, `rollout` into a file"
    )


def _icon() -> pygame.Surface:
    """A playhead: a triangle on a dark tile."""
    icon = pygame.Surface((64, 64), pygame.SRCALPHA)
    pygame.draw.rect(icon, BACKGROUND, icon.get_rect(), border_radius=14)
    pygame.draw.polygon(icon, ACCENT, [(22, 16), (22, 48), (48, 32)])
    return icon


def _comfortable(aspect: tuple[int, int], desktop: tuple[int, int]) -> tuple[int, int]:
    """The largest whole multiple of `aspect` within two thirds of the desktop."""
    scale = max(1, min(2 * desktop[0] // (3 * aspect[0]), 2 * desktop[1] // (3 * aspect[1])))
    return aspect[0] * scale, aspect[1] * scale
