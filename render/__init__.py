"""What a person sees: the window, its HUD, video and contact sheets."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
