"""What people read: the console that tables and remarks are printed on, and an output that takes anything."""

import errno
import json
import logging
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED = 2**20
"""Columns of an output that is no terminal."""
_quiet = False
_teller = logging.Handler()


def tell(verbose: bool = False, quiet: bool = False) -> None:
    """From now on tells more on the error side, or less.

    All rooms log to one logger, `playhead`. Its warnings are shown as they are unless `quiet`, which leaves
    out remarks and progress too. `verbose` shows all that is logged, with the time.
    """
    global _quiet, _teller
    log = logging.getLogger("playhead")
    log.removeHandler(_teller)
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.NOTSET)
    if verbose:
        _teller = logging.StreamHandler()
        _teller.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
        log.addHandler(_teller)
    _quiet = quiet


def console(error: bool = False) -> "Console":
    """A console on the output, or on the error side, that shows all text as it is.

    Names and titles come from outside: `[/]` in one is no markup, and `:smile:` no picture. In a pipe lines
    are as long as they have to be, so that whoever searches them finds what there is. The error side may be
    quiet (`tell`).
    """
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream is not None and stream.isatty() else UNLIMITED
    return Console(stderr=error, markup=False, emoji=False, width=width, quiet=error and _quiet)


def show(table: "Table") -> None:
    """Prints a table whole: on a terminal what is too long for a column goes on in its next line."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    console().print(table)


def show_json(found: object) -> None:
    """Prints what a program is to read."""
    print(json.dumps(found, indent=1))


def show_anything() -> None:
    """From now on what the output's encoding lacks, as cp1252 lacks Chinese, is printed as `?`.

    The error side is like that from the start.
    """
    if hasattr(sys.stdout, "reconfigure"):  # not where it is closed, or another program's own
        sys.stdout.reconfigure(errors="replace")


def lost_output(try_again: bool = False) -> str:
    """Why what was printed cannot be written, as on a full disk; empty where it is, or nobody wants it.

    `try_again`, by an empty line: after an error that may have come from printing, which keeps nothing of
    what it could not write. After a loss nothing is tried when the program ends.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.write("\n" * try_again)
            sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return "" if error.errno == errno.EPIPE else error.strerror or str(error)
    return ""


def printable(text: str, most: int = 200) -> str:
    """Text from outside as it may be shown: without what a terminal would obey, and not without end."""
    return re.sub(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", " ", text)[:most]


def plural(count: int, noun: str) -> str:
    """A number of things in words: `1 step`, `2 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
