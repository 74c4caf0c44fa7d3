"""`python -m playhead` is the command `playhead`."""

from playhead.main import main

if __name__ == "__main__":
    main()
