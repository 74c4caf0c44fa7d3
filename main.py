"""Playhead's command line: parses, composes, nothing else."""

import sys

import typer

from world.errors import PlayheadError
from world.training.commands import app as train_app

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
app.add_typer(train_app, name="train")


def main() -> None:
    """Runs a command; bad input ends in one sentence and status 2, an interruption in status 130."""
    try:
        app()
    except PlayheadError as error:
        print(f"playhead: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("playhead: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
