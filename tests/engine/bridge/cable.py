"""A network cable for tests: passes TCP on to an address, and can be cut, mended, or left dangling."""

import contextlib
import socket
import threading
import time


class Cable:
    """Listens on `address`, and joins whoever comes to `target` (tcp://host:port)."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._whole, self._flows = True, threading.Event()
        self._flows.set()
        self._ends: list[socket.socket] = []
        self.captured = bytearray()
        """All that has come through, in either direction."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection, and lets nobody in any more."""
        self._whole = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def mend(self) -> None:
        self._whole = True
        self._flows.set()

    def dangle(self) -> None:
        """Nothing comes through any more, and neither end is told."""
        self._flows.clear()

    def close(self) -> None:
        self._listener.close()
        self.mend()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._ends += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while not self._flows.wait(0.1):
                    time.sleep(0)
                self.captured += data
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
