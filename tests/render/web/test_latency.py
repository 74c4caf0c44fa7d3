"""Frames go out at once."""

import socket

from playhead.render.web.access import WebAddress
from playhead.render.web.door import bind


def test_a_small_frame_does_not_wait_for_the_receipt_of_the_last_one() -> None:
    with bind(WebAddress("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()):
        player, _ = door.accept()
        with player:
            assert player.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
