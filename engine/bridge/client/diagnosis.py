"""Why there is no answer: what ZeroMQ tells of a connection, as a sentence."""

import zmq
from zmq.utils.monitor import parse_monitor_message


class Diagnosis:
    """Listens to what happens to a socket's connection. Made before the socket connects."""

    def __init__(self, socket: zmq.Socket[bytes], keys: bool) -> None:
        self._socket, self._keys = socket, keys
        self._events = socket.get_monitor_socket(zmq.EVENT_ALL)
        self._reached = self._shaken = False
        self.refused = ""
        """Why no further try can help; empty if one may."""
        self.lost = False
        """Whether a connection that stood has ended since."""

    def look(self) -> None:
        """Takes in what has happened by now."""
        while self._events.poll(0):
            event = parse_monitor_message(self._events.recv_multipart())["event"]
            if event == zmq.EVENT_CONNECTED:
                self._reached = True
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._shaken = True
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.refused = "it does not know your key; your .key file belongs in its --clients folder"
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and not self._keys:
                self.refused = "it wants keys; give yours by --key and the server's by --server-key"
            elif event == zmq.EVENT_DISCONNECTED and self._shaken:
                self.lost = True

    def reason(self) -> str:
        """Why nothing was answered so far, as far as it can be known from here."""
        self.look()
        if self.refused:
            return self.refused
        if not self._reached:
            return "nothing listens there; start `main.py serve` and check the address"
        if self._shaken:
            return "it is there, but busy or stuck"
        if self._keys:
            return "what listens there is not the server of that --server-key, or was started without keys"
        return "what listens there is no server of Playhead"

    def close(self) -> None:
        self._socket.disable_monitor()
