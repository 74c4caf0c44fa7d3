"""docs/protocol.md is true: its bytes, its tables, and its client in a process that has no Playhead."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgpack
import msgspec
import numpy as np
import pytest
import zmq

from playhead.engine.bridge.wire import protocol
from playhead.engine.session import Session
from playhead.world.action import Action
from tests.conftest import SEED, make_tiny_context
from tests.engine.bridge.conftest import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")
DECODERS = {
    "hello": protocol.decode_request,
    "step": protocol.decode_request,
    "stepped": protocol.decode_reply,
    "header": protocol.decode_header,
}


def block(name: str) -> str:
    return re.search(rf"^```{name}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]


@pytest.mark.parametrize("name", DECODERS)
def test_the_bytes_are_those_on_the_wire_and_mean_what_is_written_beside_them(name):
    lines = [line.partition("#") for line in block(f"hex {name}").splitlines()]
    data = bytes.fromhex("".join(digits for digits, _, _ in lines))
    assert protocol.encode(DECODERS[name](data)) == data
    said = [words.split(":")[0].strip() for _, _, words in lines[1:]]
    assert said == list(msgpack.unpackb(data))


@pytest.mark.parametrize("message", [*get_args(protocol.Request), *get_args(protocol.Reply)])
def test_every_message_and_every_field_is_on_the_page(message):
    name = message.__struct_config__.tag
    (row,) = re.findall(rf"^\| (?:`\w+`, )*`{name}`(?:, `\w+`)* \|(.*)\|$", PAGE, re.MULTILINE)
    asks_about_a_session = issubclass(message, protocol.SessionRequest)
    fields = set(message.__struct_fields__) - ({"id", "session"} if asks_about_a_session else {"id"})
    assert all(f"`{field}`" in row for field in fields), (row, fields)


def test_every_code_and_what_is_told_of_worlds_is_on_the_page():
    told = (*protocol.WorldInfo.__struct_fields__, *protocol.SceneInfo.__struct_fields__)
    assert all(f"`{word}`" in PAGE for word in (*get_args(protocol.Code), *told))


def test_the_client_walks_in_a_process_that_has_pyzmq_and_msgpack_only(server, tmp_path, tiny_world):
    client = block("python")
    assert len(client.splitlines()) <= 40
    (tmp_path / "client.py").write_text(client)
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in (zmq, msgpack):
        folder = Path(package.__file__).parent
        (packages / folder.name).symlink_to(folder)
        for libraries in folder.parent.glob("pyzmq.libs"):
            (packages / libraries.name).unlink(missing_ok=True)
            (packages / libraries.name).symlink_to(libraries)

    def run(*command: str) -> subprocess.CompletedProcess[str]:  # -S: nothing that is installed is found
        return subprocess.run(
            [sys.executable, "-S", *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    assert "ModuleNotFoundError" in run("-c", "import playhead.engine").stderr
    done = run("client.py", server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tick 30: 12288 bytes" in done.stdout
    session = Session(tiny_world, make_tiny_context(), SEED)
    for buttons in [{"forward"}] * 20 + [{"forward", "turn_right"}] * 10:
        frames = session.step(Action(frozenset(buttons)))
    picture = (tmp_path / "walk.ppm").read_bytes()
    assert picture == b"P6 64 64 255\n" + np.ascontiguousarray(frames[-1]).tobytes()
    assert not server.sessions


def test_bytes_of_another_library_are_understood():
    """MessagePack of another encoder, fields in another order, and what may be left out left out."""
    data = msgpack.packb({"session": "s1", "actions": [{"buttons": ["use"]}], "id": 9, "type": "step"})
    step = protocol.decode_request(data)
    assert step == protocol.StepRequest(id=9, session="s1", actions=[Action(frozenset({"use"}))])
    assert msgspec.msgpack.decode(protocol.encode(step)) == msgpack.unpackb(protocol.encode(step))
