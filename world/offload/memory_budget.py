"""How much memory a world may take: what `--vram` and `--ram` say."""

import re
from dataclasses import dataclass

from playhead.world.errors import WorldError

UNITS = {"MB": 2**20, "MIB": 2**20, "GB": 2**30, "GIB": 2**30}
"""Bytes, as memory is sold: a card of 8 GB has 8 * 2^30."""
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([MG]i?B)", re.IGNORECASE)


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that a world and its sessions may take of a GPU's memory and of main memory; None: no limit.

    `sessions`: bytes that are kept free for sessions' caches, where that is more than one session's.
    """

    vram: int | None = None
    ram: int | None = None
    sessions: int = 0

    @classmethod
    def parse(cls, vram: str | None, ram: str | None, sessions: int = 0) -> "MemoryBudget | None":
        """What the options of those names say, None for neither. Raises WorldError for what is no size."""
        if vram is None and ram is None:
            return None
        return cls(_parse(vram, "--vram"), _parse(ram, "--ram"), sessions)


def _parse(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or not (size := int(float(found[1]) * UNITS[found[2].upper()])):
        raise WorldError(f"{option} is a size such as 6GB or 800MB, not `{text[:40]}`")
    return size


def told(size: float) -> str:
    """Bytes as the options have them: `5.9 GB`, of 2^30 bytes each."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def told_least(size: float) -> str:
    """The same rounded up, so that what is said would do."""
    unit, digits = (2**30, 10) if size >= 2**30 else (2**20, 1)
    return told(-(-size * digits // unit) * unit / digits)
