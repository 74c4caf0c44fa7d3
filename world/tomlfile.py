"""Reading TOML into typed settings, with one sentence for whatever is wrong."""

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from world.errors import PlayheadError

Fields = TypeVar("Fields")


def read_toml(path: Path, kind: type[Fields], what: str, missing: str, error: type[PlayheadError]) -> Fields:
    """Reads `path` as a `kind`, a msgspec.Struct, strictly; a byte-order mark is skipped.

    Raises `error` naming the file, the field and the mend; `what` names such a file, `missing` says what to
    do where there is none.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8-sig")), kind, strict=True)
    except FileNotFoundError:
        raise error(f"{path} is missing: {missing}") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"{path} is not a usable {what}: it is not UTF-8; save it as that") from None
    except RecursionError:
        raise error(f"{path} is not a usable {what}: it is nested too deeply; correct it there") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise error(f"{path} is not a usable {what}: {problem}; correct it there") from None
