"""A Space of Hugging Face's: Playhead's forms and live page, for whoever may see the Space."""

import os
import runpy
import sys
from pathlib import Path

PORT = os.environ.get("GRADIO_SERVER_PORT", "7860")
"""Where a Space expects its page; the hub sees to TLS, and to who may come."""
HERE = Path(__file__).resolve().parent
MAIN = next(folder / "main.py" for folder in (HERE, HERE.parents[1]) if (folder / "main.py").is_file())
"""Playhead's: in a Space it lies beside this file, in a checkout two folders above."""

worlds = [word for name in os.environ.get("PLAYHEAD_WORLDS", "").split() for word in ("--world", name)]
sys.argv = [
    str(MAIN), "demo", "--bind", f"0.0.0.0:{PORT}", "--no-open", "--behind-proxy", "--public",
    "--framed-by", "https://huggingface.co", "--sessions", "4", "--idle", "120", "--no-record", *worlds,
]  # fmt: skip
if __name__ == "__main__":
    runpy.run_path(str(MAIN), run_name="__main__")
