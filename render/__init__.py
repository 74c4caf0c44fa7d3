"""What a person sees: the window, its HUD and timeline, film, data sets, sheets, plots, benchmarks."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
