"""A server whose world has wide passes: sessions are stepped together, each as if it were alone."""

import gc
import threading
from itertools import pairwise
from statistics import median

import numpy as np
import pytest

from playhead.engine.bridge.client.client import Client
from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server, serve_in_background
from playhead.engine.bridge.wire import protocol as p
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.recording.reader import Recording
from playhead.engine.recording.replay import load_world, replay
from playhead.engine.session import Session
from playhead.scenes.scene import load_scene
from playhead.world.action import Action
from playhead.world.world import World
from tests.conftest import BUTTONS, make_tiny_world, save_world
from tests.engine.bridge.conftest import serving, until, wait_for

TICKS = 12


@pytest.fixture(scope="module")
def world():
    made = make_tiny_world(one_pass=True, steps=(1000.0, 500.0), rest_after=3, lay_out=False)
    made.widen(4)
    return made


@pytest.fixture
def server(world, tiny_scene):
    with serving(world, tiny_scene, Limits(sessions=6)) as made:
        yield made


def actions(seed: int) -> list[Action]:
    draws = np.random.default_rng(seed)
    return [Action(frozenset(b for b in BUTTONS if draws.random() < 0.4)) for _ in range(TICKS)]


def alone(world, scene, seed: int, held: list[Action], steps: int = 2) -> list[np.ndarray]:
    session = Session(world, load_scene(scene).context, seed)
    session.steps = steps
    return [session.step(action) for action in held]


def test_clients_who_step_at_once_see_what_each_would_alone(server, world, tiny_scene, monkeypatch) -> None:
    sizes, real = [], world.wide.tick

    def counting(states, *given):
        sizes.append(len(states))
        return real(states, *given)

    monkeypatch.setattr(world.wide, "tick", counting)
    begin, seen = threading.Barrier(4), {}

    def play(seed: int) -> None:
        client = Client(server.address, patience=60)
        session = client.ask(p.OpenRequest(seed=seed), p.OpenReply)[0].session
        begin.wait(60)
        for at in range(0, TICKS, 3):
            request = p.StepRequest(session=session, actions=actions(seed)[at : at + 3])
            stepped, frames = client.ask(request, p.StepReply)
            assert (stepped.first, stepped.tick) == (at + 1, at + 3)
            seen.setdefault(seed, []).extend(frames[:, None])
        client.close()

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert max(sizes) > 1
    for seed in range(4):
        assert np.array_equal(seen[seed], alone(world, tiny_scene, seed, actions(seed)))


def test_ticks_that_are_kept_are_nothing_that_the_collector_looks_through(server) -> None:
    """Else it would hold up everybody's ticks for longer and longer."""
    client = Client(server.address, patience=60)
    session = client.ask(p.OpenRequest(seed=5), p.OpenReply)[0].session
    counts = []
    for _ in range(6):
        for seed in range(8):
            client.ask(p.StepRequest(session=session, actions=actions(seed), frames="none"), p.StepReply)
        gc.collect()
        counts.append(len(gc.get_objects()))
    client.close()
    # What other threads of this process make and drop now and then is not in every round; ticks would be.
    assert median(after - before for before, after in pairwise(counts)) < 8 * TICKS / 2


def test_what_is_asked_between_steps_comes_between_them(server, world, tiny_scene) -> None:
    client, held = Client(server.address, patience=60), actions(5)
    session = client.ask(p.OpenRequest(seed=5), p.OpenReply)[0].session
    ids = [client.send(p.StepRequest(session=session, actions=held[:4]))]
    ids.append(client.send(p.TuneRequest(session=session, steps=1)))
    ids.append(client.send(p.SnapshotRequest(session=session)))
    ids.append(client.send(p.StepRequest(session=session, actions=held[4:])))
    kinds = p.StepReply, p.DoneReply, p.SnapshotReply, p.StepReply
    found = {}
    while len(found) < 4:
        message, frames = client.receive(60)
        assert isinstance(message, kinds[ids.index(message.id)]), message
        found[message.id] = message, frames
    first, snapshot, second = (found[ids[n]] for n in (0, 2, 3))
    assert snapshot[0].tick == 4
    before = Session(world, load_scene(tiny_scene).context, 5)
    wanted = [before.step(action) for action in held[:4]]
    assert np.array_equal(first[1][:, None], wanted)
    before.steps = 1
    assert np.array_equal(second[1][:, None], [before.step(action) for action in held[4:]])
    client.ask(p.RestoreRequest(session=session, snapshot=snapshot[0].snapshot), p.ObserveReply)
    again, frames = client.ask(p.StepRequest(session=session, actions=held[4:6]), p.StepReply)
    assert again.tick == 6
    client.close()


def test_a_session_that_goes_live_is_played_by_its_loop_and_comes_back(server) -> None:
    client = Client(server.address, patience=60)
    session = client.ask(p.OpenRequest(seed=6), p.OpenReply)[0].session
    step = p.StepRequest(session=session, actions=[Action()])
    assert client.ask(step, p.StepReply)[0].tick == 1
    client.ask(p.TuneRequest(session=session, clock="live"), p.DoneReply)
    act = client.send(p.ActRequest(session=session, action=Action(frozenset({"forward"}))))
    assert until(client, p.AppliedPush, act).tick > 1
    client.ask(p.TuneRequest(session=session, clock="lockstep"), p.DoneReply)
    before = client.ask(p.ObserveRequest(session=session), p.ObserveReply)[0].tick
    assert client.ask(step, p.StepReply)[0].tick == before + 1
    client.close()


def test_a_step_that_cannot_be_played_is_refused_and_the_session_goes_on(server, monkeypatch, world) -> None:
    client, real = Client(server.address, patience=60), world.wide.tick
    session = client.ask(p.OpenRequest(seed=7), p.OpenReply)[0].session
    with pytest.raises(BridgeError, match="jump"):
        client.ask(p.StepRequest(session=session, actions=[Action(frozenset({"jump"}))]), p.StepReply)

    def broken(*given):
        monkeypatch.setattr(world.wide, "tick", real)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(world.wide, "tick", broken)
    step = p.StepRequest(session=session, actions=[Action()])
    with pytest.raises(BridgeError):
        client.ask(step, p.StepReply)
    assert client.ask(step, p.StepReply)[0].tick == 1
    client.close()


def test_a_session_may_be_closed_while_it_is_stepped(server) -> None:
    client = Client(server.address, patience=60)
    session = client.ask(p.OpenRequest(seed=8), p.OpenReply)[0].session
    step = client.send(p.StepRequest(session=session, actions=[Action()] * 200, frames="none"))
    close = client.send(p.CloseRequest(session=session))
    seen = {}
    while len(seen) < 2:
        message, _ = client.receive(60)
        seen[message.id] = message
    assert isinstance(seen[close], p.DoneReply)
    assert isinstance(seen[step], p.ErrorReply | p.StepReply)
    wait_for(lambda: not any(t.name == "loop" for t in threading.enumerate()))
    client.close()


def test_what_was_played_in_company_is_replayed_by_passes_of_that_width(
    tiny_world_folder, tiny_scene, tmp_path
) -> None:
    wide = make_tiny_world(one_pass=True, lay_out=False)
    wide.widen(3)
    folder = save_world(wide, tmp_path / "tiny")
    played = World.load(folder)  # whose weights were rounded by the saving
    played.widen(3)
    registry = Registry([played], [load_scene(tiny_scene)])
    server = Server(registry, "tcp://127.0.0.1:*", recordings=tmp_path)
    thread = serve_in_background(server)
    client = Client(server.address, patience=60)
    try:
        session = client.ask(p.OpenRequest(seed=9), p.OpenReply)[0].session
        client.ask(p.StepRequest(session=session, actions=actions(9)), p.StepReply)
        client.ask(p.SaveRequest(session=session, name="kept"), p.SaveReply)
    finally:
        client.close()
        server.stop()
        thread.join(20)
    recording = Recording.read(tmp_path / "kept.playhead")
    assert recording.environment(1)["width"] == "3"
    here = load_world(recording, str(folder), "cpu")
    assert here.wide is not None and here.wide.width == 3
    assert [moment.equal for moment in replay(recording, here)] == [True] * (TICKS + 1)
