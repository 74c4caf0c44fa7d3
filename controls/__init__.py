"""What the player holds: key maps and the sources of actions."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
