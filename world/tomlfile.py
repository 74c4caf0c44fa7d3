"""Reading TOML into typed settings, with one sentence for whatever is wrong."""

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from playhead.world.errors import PlayheadError

Fields = TypeVar("Fields")
LARGEST = 1e12
"""What a number that is no whole one may be at the most."""


class _Number(ValueError):
    """A number that is none, or has no end."""


def read_toml(path: Path, kind: type[Fields], what: str, missing: str, error: type[PlayheadError]) -> Fields:
    """Reads `path` as a `kind`, a msgspec.Struct, strictly; a byte-order mark is skipped.

    Raises `error` naming the file, the field and the mend; `what` names such a file, `missing` says what to
    do where there is none.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
        _check_numbers(values)
        return msgspec.convert(values, kind, strict=True)
    except FileNotFoundError:
        raise error(f"{path} is missing: {missing}") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"{path} is not a usable {what}: it is not UTF-8; save it as that") from None
    except RecursionError:
        raise error(f"{path} is not a usable {what}: it is nested too deeply; correct it there") from None
    except ValueError as problem:  # of TOML, of the fields, of a number
        raise error(f"{path} is not a usable {what}: {problem}; correct it there") from None


def _check_numbers(value: object, name: str = "") -> None:
    """Raises _Number for one that is infinite, too large or none, anywhere in what TOML held."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, name)
    elif isinstance(value, float) and not abs(value) <= LARGEST:
        raise _Number(f"`{name}` is {value}, which is no number for it")
