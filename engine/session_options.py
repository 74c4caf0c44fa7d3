"""What a command may be told of sessions, offered or played: the options that are the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

Worlds = Annotated[list[str] | None, typer.Option(help="Worlds to offer; default: freedoom.")]
FurtherScenes = Annotated[list[Path] | None, typer.Option(help="Folders of further scenes.")]
MostSessions = Annotated[int, typer.Option(help="Sessions at the most.", min=1)]
MostMemory = Annotated[int, typer.Option(help="MB of caches and snapshots at the most.", min=1)]
IdleSeconds = Annotated[float, typer.Option(help="Seconds until an unused session ends.", min=1)]
RecordingsFolder = Annotated[Path | None, typer.Option(help="Folder for recordings, else the usual one.")]
NoRecord = Annotated[bool, typer.Option("--no-record", help="Record nothing.")]
ServerKey = Annotated[Path | None, typer.Option(help="The server's .key.")]
