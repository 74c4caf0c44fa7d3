"""`main.py mcp` in a process of its own, and the SDK's own client at the other end of its pipes."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygame
import pytest
from mcp import StdioServerParameters
from mcp.client import Client

ROOT = Path(__file__).parents[3]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Answered:
    """What a tool said, and the pictures that came with it, as rows of pixels `(H, W, 3)`."""

    said: dict[str, Any]
    pictures: list[Any]


class Model:
    """A client that calls tools as a language model would."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: object) -> Answered:
        found = await self.client.call_tool(tool, arguments)
        assert not found.is_error, found.content
        said, *pictures = found.content
        return Answered(json.loads(said.text), [pixels(picture) for picture in pictures])

    async def refusal(self, tool: str, **arguments: object) -> str:
        """The sentence that a tool refuses by."""
        found = await self.client.call_tool(tool, arguments)
        assert found.is_error
        return found.content[0].text


def pixels(picture) -> Any:
    import base64
    import io

    assert picture.mime_type == "image/png"
    surface = pygame.image.load(io.BytesIO(base64.b64decode(picture.data)), "picture.png")
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


@pytest.fixture
def command(tiny_world_folder, tiny_scene, tmp_path) -> list[str]:
    """The command line of a server of the tiny world, which records to `tmp_path / "kept"`."""
    return [
        str(ROOT / "main.py"), "mcp", "--world", str(tiny_world_folder), "--scene", str(tiny_scene),
        "--device", "cpu", "--recordings", str(tmp_path / "kept"),
    ]  # fmt: skip


@asynccontextmanager
async def stdio_model(command: list[str], folder: Path) -> AsyncIterator[Model]:
    server = StdioServerParameters(
        command=sys.executable, args=command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PLAYHEAD_HOME": str(folder / "home")},
    )  # fmt: skip
    async with Client(server) as client:
        yield Model(client)
