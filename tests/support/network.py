"""A network that loses answers: what a server did, and its client never learned."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.services import HOST


class LossyNetwork:
    """Forwards connections to a server; of requests that put something it can lose the answers."""

    def __init__(self, listener: socket.socket, server_port: int) -> None:
        self._listener, self._server_port = listener, server_port
        self.port: int = listener.getsockname()[1]
        self.answers_to_lose = 0
        self.requests: list[str] = []  # their first lines' methods

    def serve(self) -> None:
        """Forward until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._server_port))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, target, source is server), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                if not answers and content.startswith((b"GET ", b"PUT ", b"HEAD ", b"POST ")):
                    self.requests.append(content.split(b" ", 1)[0].decode())
                if answers and self.answers_to_lose and self.requests[-1] == "PUT":
                    self.answers_to_lose -= 1
                    break
                target.sendall(content)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def lossy_network(server_port: int) -> Iterator[LossyNetwork]:
    """A port of the loopback address that leads to a server's."""
    with socket.create_server((HOST, 0)) as listener:
        network = LossyNetwork(listener, server_port)
        serving = threading.Thread(target=network.serve, daemon=True)
        serving.start()
        try:
            yield network
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()
