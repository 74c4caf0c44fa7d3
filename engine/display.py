"""Whether there is a display to open a window on, as far as the environment says."""

import os
import sys


def lacks_display() -> bool:
    """Whether no window can be opened here: Linux with neither X, Wayland nor another driver of SDL's."""
    named = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return sys.platform.startswith("linux") and not any(os.environ.get(name) for name in named)
