"""The same actions through every door give the same frame hashes: all of them over one server, or beside it.

Real keys in a real browser and a real window are compared in `web/test_page.py` and `test_five_ways.py`.
"""

import asyncio
from pathlib import Path

import numpy as np
import torch
from mcp.client import Client as ModelClient

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import verify
from playhead.render.demo.demo_door import DemoDoor
from playhead.render.mcp.model_sessions import ModelSessions
from playhead.render.mcp.remote_line import RemoteLine
from playhead.render.mcp.remote_sessions import RemoteSessions
from playhead.render.mcp.tool_server import make_tool_server
from playhead.render.script_rollout import rollout
from playhead.render.web.access import WebAddress
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from tests.conftest import SEED
from tests.frame_hashes import frame_hashes, recorded_hashes
from tests.render.comfyui.stand_in import ComfyUI
from tests.render.demo.conftest import FormsClient
from tests.render.mcp.conftest import Model
from tests.render.web.page_client import PageClient, frames_of_reply

SCRIPT = "w*3 w+right*2 d . space*2 e"
HELD = [
    *[["forward"]] * 3, *[["forward", "turn_right"]] * 2, ["strafe_right"], [], *[["attack"]] * 2, ["use"],
]  # fmt: skip
"""What that holds, tick by tick."""
PACK = Path(__file__).parents[2] / "examples" / "comfyui" / "playhead_nodes"


def by_page(link: str) -> list[np.ndarray]:
    with PageClient(link) as page:
        opened = page.ask("open")
        films = [frames_of_reply(opened)]
        for buttons in HELD:
            reply = page.ask("step", session=opened["session"], actions=[{"buttons": buttons}])
            films.append(frames_of_reply(reply))
        page.ask("close", session=opened["session"])
    return films


def by_bridge(address: str) -> list[np.ndarray]:
    client = Client(address, patience=60)
    opened, start = client.ask(p.OpenRequest(), p.OpenReply)
    actions = [Action(frozenset(buttons)) for buttons in HELD]
    _, frames = client.ask(p.StepRequest(session=opened.session, actions=actions), p.StepReply)
    client.ask(p.CloseRequest(session=opened.session), p.DoneReply)
    client.close()
    return [start, *(frame[None] for frame in frames)]


def by_model(sessions, name: str) -> None:
    """Has a model play, and save what it played."""

    async def play() -> None:
        async with ModelClient(make_tool_server(sessions)) as client:
            model = Model(client)
            await model.call("open")
            await model.call("act", moves=[{"buttons": buttons} for buttons in HELD], pictures=3)
            await model.call("save", name=name)
            await model.call("close")

    asyncio.run(play())


def by_node(world, scene, monkeypatch) -> list[np.ndarray]:
    comfy = ComfyUI(PACK, monkeypatch)
    images, _ = comfy.run("PlayheadPlayScript", world=world, scene=scene, script=SCRIPT, seed=SEED)
    return [frame[None] for frame in torch.round(images * 255).to(torch.uint8).numpy()]


def test_the_same_actions_through_every_door_give_the_same_hashes(
    tiny_world, tiny_scene, tmp_path, monkeypatch
):
    scene = load_scene(tiny_scene)
    registry = Registry([tiny_world], [scene])
    server = Server(registry, "tcp://127.0.0.1:*", recordings=tmp_path / "server")
    door = DemoDoor(server, registry, WebAddress("127.0.0.1", 0))
    thread = serve_in_background(server)
    door.start()
    ways: dict[str, list[str]] = {}
    try:
        bridge = by_bridge(server.address)
        start = bridge[0]
        ways["bridge"] = frame_hashes(bridge)
        ways["page"] = frame_hashes(by_page(door.link))
        filmed = FormsClient(door).film(SCRIPT)
        remote = RemoteSessions(RemoteLine(server.address, None), alone=True)
        by_model(remote, "model")
        remote.close()
        ways["MCP over the server"] = recorded_hashes(tmp_path / "server" / "model.playhead")
    finally:
        server.stop()
        thread.join(20)
        door.stop(20)
    own = ModelSessions(registry, Limits(), tmp_path / "own", alone=True)
    by_model(own, "model")
    own.close()
    ways["MCP"] = recorded_hashes(tmp_path / "own" / "model.playhead")
    ways["node"] = frame_hashes([start, *by_node(tiny_world, scene, monkeypatch)])
    ways["script"] = frame_hashes([start, *(frame[None] for frame in rollout(tiny_world, scene, SCRIPT))])
    assert {name: hashes for name, hashes in ways.items() if hashes != ways["script"]} == {}
    assert len(set(ways["script"])) == len(HELD) + 1
    assert (filmed["hash"], filmed["ticks"]) == (ways["script"][-1], len(HELD))  # Gradio's film
    for kept in (tmp_path / "server", tmp_path / "own"):
        assert verify(Recording.read(kept / "model.playhead"), tiny_world) is None
