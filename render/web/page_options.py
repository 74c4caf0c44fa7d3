"""What a command may be told of the page that it serves: the options that are the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

PageBind = Annotated[str, typer.Option(help="HOST:PORT of the page; port * takes a free one.")]
NoOpen = Annotated[bool, typer.Option("--no-open", help="Open no browser.")]
TlsCert = Annotated[Path | None, typer.Option(help="The page's certificate, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, PEM.")]
BehindProxy = Annotated[bool, typer.Option("--behind-proxy", help="A proxy sees to TLS.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="Where the page's token is kept, else a new one each time.")
]
PageRate = Annotated[int, typer.Option(help="Requests a second of one page at the most.", min=1)]
NoWayBack = Annotated[bool, typer.Option("--no-record", help="Record nothing; no way back then.")]
