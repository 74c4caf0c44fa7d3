"""Playing on another machine: the frames of the session there, keys at once, a connection that comes back."""

import time

import numpy as np
import pytest

from playhead.engine.bridge.client.receipts import Receipts
from playhead.engine.bridge.client.remote_session import RemoteSession, SessionOptions
from playhead.engine.bridge.wire.protocol import SceneInfo
from playhead.engine.session import Session
from playhead.world.action import Action
from playhead.world.errors import PlayheadError
from tests.conftest import SEED, make_tiny_context, make_tiny_world
from tests.engine.bridge.cable import Cable
from tests.engine.bridge.conftest import serve_process, serving
from tests.engine.bridge.seat import NONE, Seat, play_over_a_breaking_line, seat

RIGHT, LEFT = Action(frozenset({"turn_right"})), Action(frozenset({"turn_left"}))


def dreamed(world, actions: list[Action]) -> list[np.ndarray]:
    session = Session(world, make_tiny_context(), SEED)
    return [session.step(action) for action in actions]


def test_what_is_held_is_what_the_session_there_dreams(server, tiny_world):
    """A key that is held, one that is tapped between two ticks, and nothing: the very frames of a session."""
    with seat(server.address) as player:
        player.pause_at_the_start()
        player.hold(RIGHT)
        seen = [player.step() for _ in range(3)]
        player.hold(NONE)
        player.hold(LEFT)
        player.hold(NONE)
        seen += [player.step() for _ in range(2)]
        assert player.loop.stats.key_p50 > 0
    assert np.array_equal(seen, dreamed(tiny_world, [RIGHT, RIGHT, RIGHT, LEFT, NONE]))
    assert not server.sessions  # it ended with its player


def test_every_frame_of_a_tick_comes_down_in_its_order(tiny_scene):
    world = make_tiny_world(time_factor=2)
    with serving(world, tiny_scene) as server, seat(server.address) as player:
        player.pause_at_the_start()
        player.hold(RIGHT)
        seen = [player.step() for _ in range(3)]
        assert [frames.shape for frames in seen] == [(2, 64, 64, 3)] * 3
        assert np.array_equal(seen, dreamed(world, [RIGHT] * 3))


def test_a_script_is_played_tick_by_tick_and_then_the_keys_count(server, tiny_world):
    script = [RIGHT] * 4 + [LEFT] * 3 + [NONE]
    with seat(server.address, script=script, last=12) as player:
        player.hold(RIGHT)
        player.loop._thread.join(30)
        history = next(iter(server.sessions), None)
        assert history is None  # the last tick was the end of it
    shown = {t.number: t.frames for t in player.ticks if t.action is not None}
    wanted = dict(enumerate(dreamed(tiny_world, script), 1))
    seen = [n for n in wanted if n in shown]
    assert seen and all(np.array_equal(shown[n], wanted[n]) for n in seen)
    assert max(shown) >= 12 and player.ticks[-1].action == RIGHT


def test_a_script_whose_connection_is_lost_goes_on_where_it_was(server):
    script = [RIGHT, LEFT, NONE] * 8
    cable = Cable(server.address)
    with seat(cable.address, script=script, wanted={"speed": 2.0}) as player:
        player.wait(lambda: player.ticks[-1].number > 4, "some ticks")
        cable.cut()
        player.wait(lambda: "no connection" in player.state, "the state")
        cable.mend()
        player.wait(lambda: player.ticks[-1].number > len(script), "the end of the script")
        (hosted,) = server.sessions
        played = hosted.loop.ask(lambda session: hosted.ticks()).result()
        assert [tick.action for tick in played[: len(script)]] == script
    cable.close()


def test_commands_change_the_session_there(server):
    with seat(server.address, wanted={"hold": True}) as player:
        player.wait(lambda: player.loop.stats, "a figure")
        assert player.loop.stats.tick == 0  # it stands still while nothing is held
        player.loop.toggle_hold()
        player.wait(lambda: player.loop.stats.tick > 2, "a tick")
        player.loop.change_speed(2)
        player.loop.change_steps(1)
        player.wait(lambda: (player.loop.stats.speed, player.loop.stats.steps) == (2, 3), "both")
        player.loop.change_steps(20)
        player.wait(lambda: any("denoise steps" in s for s in player.said), "a refusal")
        player.loop.toggle_auto_steps()
        player.wait(lambda: player.loop.stats.auto, "automatic steps")
        player.loop.restart(77)
        player.wait(lambda: player.ticks[-1].seed == 77, "another seed")
        begun = player.begun
        player.loop.switch(lambda: player.line.scene)
        player.wait(lambda: player.begun > begun, "a beginning")


def test_a_scene_that_cannot_be_had_is_said_and_the_session_goes_on(server):
    def choose() -> SceneInfo:
        raise PlayheadError("the scene of this session is chosen in its own window")

    with seat(server.address) as player:
        player.loop.switch(choose)
        player.wait(lambda: any("its own window" in sentence for sentence in player.said), "the sentence")
        number = player.ticks[-1].number
        player.wait(lambda: player.ticks[-1].number > number, "a tick more")


@pytest.mark.parametrize("end", ["cut", "dangle"])
def test_a_lost_connection_comes_back_to_the_same_session(server, end, monkeypatch):
    monkeypatch.setattr("playhead.engine.bridge.client.remote_loop.SILENCE", 1.0)
    cable = Cable(server.address)
    with seat(cable.address) as player:
        player.hold(RIGHT)
        player.wait(lambda: player.ticks[-1].number > 3, "some ticks")
        session = player.line.opened.session
        getattr(cable, end)()
        player.wait(lambda: "no connection" in player.state, "the state")
        cable.cut()  # a cable that dangles is noticed by the server too, later
        (hosted,) = server.sessions
        player.wait(lambda: not hosted.lease.holder, "the server's notice")
        stood = hosted.loop.ask(lambda session: session.tick).result()
        time.sleep(0.2)
        assert hosted.loop.ask(lambda session: session.tick).result() == stood  # nobody plays: it waits
        cable.mend()
        player.wait(lambda: player.said[-1] == "connected again", "the way back")
        assert player.line.opened.session == session
        number, count = player.ticks[-1].number, len(player.ticks)
        player.wait(lambda: player.ticks[-1].number > number, "a tick more")
        assert player.state == ""
        assert all(t.action is not None for t in player.ticks[count:])
        player.wait(lambda: player.loop.stats.held == ("turn_right",), "the key that is held still")
    cable.close()


def test_a_line_that_keeps_breaking_costs_no_frame_that_is_right(server, tiny_world, monkeypatch):
    """The short form of `python -m tests.tools.long line`."""
    monkeypatch.setattr("playhead.engine.bridge.client.remote_loop.SILENCE", 0.6)
    play_over_a_breaking_line(server, tiny_world, breaks=4)


def test_a_server_that_was_restarted_plays_the_same_scene_anew(tiny_world_folder, tiny_scene):
    with serve_process(tiny_world_folder, tiny_scene) as (_, address):
        player = Seat(address)
        player.wait(lambda: player.ticks[-1].number > 2, "some ticks")
        player.loop.restart(123)
        player.wait(lambda: player.ticks[-1].seed == 123, "another seed")
    player.wait(lambda: "no connection" in player.state, "the state")
    assert any("nothing listens there" in sentence for sentence in player.said) or player.loop.alive
    with serve_process(tiny_world_folder, tiny_scene, bind=address):
        player.wait(lambda: "the server lost the session: it begins anew" in player.said, "the way back")
        player.wait(lambda: player.ticks[-1].number > 2 and player.state == "", "ticks")
        assert player.ticks[-1].seed == 123
        player.loop.stop()
        player.loop.join()


def test_a_session_that_ends_there_is_said_to_have_ended_and_begins_anew(server):
    with seat(server.address) as player:
        player.wait(lambda: player.ticks[-1].number > 2, "some ticks")
        (hosted,) = server.sessions
        server.post(lambda: server.sessions.end(hosted, "it was in the way"))
        player.wait(lambda: "the session has ended: it was in the way" in player.said, "the reason")
        player.wait(lambda: player.said[-1] == "the server lost the session: it begins anew", "a new one")
        player.wait(lambda: player.begun == 2 and player.ticks[-1].number > 2, "ticks")


def test_a_fault_on_the_way_to_the_screen_ends_the_play_with_a_sentence(server):
    player = Seat(server.address)

    def fail(tick) -> None:
        if tick.number > 2:
            raise ValueError("no more room")

    player.loop.subscribe(fail)
    with pytest.raises(PlayheadError, match="broke off: ValueError: no more room"):
        player.loop.join()


def test_lossy_codecs_come_close_and_say_what_they_cost(server):
    for codec in ("jpeg", "h264"):
        with seat(server.address, wanted={"codec": codec, "seed": SEED}) as player:
            player.wait(lambda player=player: player.ticks[-1].number > 5, "some ticks")
            link = player.loop.stats.link
            assert link.codec == codec and link.decode_p50 > 0 and link.round_trip_p50 > 0
            assert player.ticks[-1].frames.shape == (1, 64, 64, 3)


def test_what_the_server_does_not_have_is_said_before_anything_opens(server):
    for wanted, sentence in (
        ({"world": "mars"}, "there is no world `mars`"),
        ({"scene": "x"}, "no scene `x`"),
    ):
        with pytest.raises(PlayheadError, match=sentence):
            RemoteSession(server.address, None, SessionOptions(**wanted))
    assert not server.sessions


def test_a_key_is_timed_to_the_frame_that_obeys_it_whichever_comes_first():
    receipts = Receipts()
    receipts.sent(1, 10.0)
    receipts.applied(1, 5)
    receipts.shown(5, 10.25)
    receipts.shown(6, 10.5)
    receipts.sent(2, 10.375)
    receipts.applied(2, 6)
    receipts.applied(2, 6)
    receipts.sent(3, 11.0)
    receipts.forget()
    receipts.applied(3, 7)
    receipts.shown(7, 12.0)
    assert list(receipts.times) == [0.25, 0.125]
