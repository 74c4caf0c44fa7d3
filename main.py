"""Runs Playhead from its folder, installed or not: `python main.py …` is `playhead …` of this checkout."""

from playhead.main import main

if __name__ == "__main__":
    main()
