"""The console that tables and remarks are printed on."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(error: bool = False) -> "Console":
    """A console on the output, or on the error side, that shows all text as it is.

    Names and titles come from outside: `[/]` in one is no markup, and `:smile:` no picture.
    """
    from rich.console import Console

    return Console(stderr=error, markup=False, emoji=False)
