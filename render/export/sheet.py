"""Pictures on disk: a PNG of one frame, and contact sheets of many."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pygame

GAP = 4
LABEL = 18
INK, PAPER = (235, 235, 235), (24, 24, 28)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Writes a picture, uint8 `(H, W, 3)`, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            pygame.image.save(_surface(picture), file, "picture.png")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def contact_sheet(frames: Sequence[np.ndarray], labels: Sequence[str], columns: int = 6) -> np.ndarray:
    """Frames uint8 `(H, W, 3)` of one size in rows, each under its label: uint8 `(rows, columns, 3)`."""
    height, width, _ = frames[0].shape
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    sheet = pygame.Surface((columns * (width + GAP) + GAP, rows * (height + LABEL + GAP) + GAP))
    sheet.fill(PAPER)
    pygame.font.init()
    font = pygame.font.Font(None, LABEL)
    for i, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + LABEL + GAP)
        sheet.blit(font.render(label, True, INK), (x, y + 2), (0, 0, width, LABEL))
        sheet.blit(_surface(frame), (x, y + LABEL))
    return pygame.surfarray.array3d(sheet).swapaxes(0, 1)


def _surface(picture: np.ndarray) -> pygame.Surface:
    height, width, _ = picture.shape
    return pygame.image.frombuffer(np.ascontiguousarray(picture).tobytes(), (width, height), "RGB")
