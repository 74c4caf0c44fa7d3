"""What the player holds: key maps, keyboard, gamepads, scripts."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
