"""Whatever comes in, the server answers or drops it, and those beside do not notice."""

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.bridge import protocol as p
from engine.bridge.client import Client
from engine.bridge.protocol import BridgeError
from tests.engine.bridge.conftest import serving
from tests.engine.bridge.fuzz import FIELDS, REQUESTS, attack

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
requests = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(REQUESTS),
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=6),
)
messages = st.binary(max_size=300) | st.one_of(values, requests).map(
    lambda value: msgpack.packb(value, unicode_errors="surrogatepass")
)


@pytest.fixture(scope="module")
def talk(tiny_world, tiny_scene):
    """A server, a client of it that has said hello, and a bare socket."""
    with serving(tiny_world, tiny_scene) as server:
        client = Client(server.address, "test", patience=20)
        yield server, client
        client.close()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=messages, parts=st.integers(1, 3))
def test_every_message_is_answered_by_one_of_the_protocol(talk, caplog, message, parts):
    _, client = talk
    client.socket.send_multipart([message] * parts)
    reply, _ = client.receive(20)
    assert isinstance(reply, p.Error) or parts == 1
    client.ask(p.Hello(protocol=[p.VERSION], client="test"), p.Welcome)
    assert not caplog.records


def test_messages_after_an_end_or_before_a_beginning_are_refused(talk):
    server, client = talk
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(server.address)
        session = client.ask(p.Open(), p.Opened)[0].session
        for request in (p.Ping(id=5), p.Observe(id=6, session=session), p.Close(id=7, session=session)):
            stranger.send(p.encode(request))
            reply = p.decode_reply(stranger.recv())
            assert (reply.code, reply.id) == ("hello_first", request.id)
    ids = [client.send(r) for r in (p.Close(session=session), p.Observe(session=session))]
    client.answer(ids[0], p.Done)
    with pytest.raises(BridgeError) as error:
        client.answer(ids[1], p.Observed)
    assert error.value.code == "unknown_session"


def test_four_thousand_hostile_messages_change_nothing_for_a_neighbour(tiny_world_folder, tiny_scene):
    """The short form of `python -m tests.long bridge-fuzz`, which sends a million."""
    outcome = attack(tiny_world_folder, tiny_scene, 4000, seed=1)
    assert outcome.said == ""  # no fault of the server's own
    assert outcome.neighbour["ticks"]
    assert {"malformed", "hello_first", "unknown_session", "welcome", "pong", "opened"} <= set(
        outcome.answers
    )
