"""A network link that can be cut without a reset: a process between a client and its server, which can be stopped."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ports import free_port

CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Link:
    """A way to the server.

    Attributes:
        url: address of its near end.
    """

    url: str
    _process: subprocess.Popen[bytes]

    def cut(self) -> None:
        """Let nothing through, and close nothing: what is sent waits, new connections get no answer."""
        self._process.send_signal(signal.SIGSTOP)

    def heal(self) -> None:
        """Let everything through again, what was sent meanwhile first."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def link_to(port: int) -> Iterator[Link]:
    """Give a link to a server on this host while the context is open."""
    near = free_port()
    process = subprocess.Popen([sys.executable, __file__, str(near), str(port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Link(f"redis://127.0.0.1:{near}/0", process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def forward(near: int, far: int) -> None:
    """Copy bytes between connections to `near` and connections of their own to `far`, for ever."""
    with socket.create_server(("127.0.0.1", near), backlog=64) as listener:
        print("ready", flush=True)
        peers: dict[socket.socket, socket.socket] = {}
        while True:
            readable, _, _ = select.select([listener, *peers], [], [])
            for end in readable:
                if end is listener:
                    client, _ = listener.accept()
                    with contextlib.suppress(OSError):  # a server that is away: the client sees a closed connection
                        server = socket.create_connection(("127.0.0.1", far))
                        peers[client], peers[server] = server, client
                        continue
                    client.close()
                elif end in peers:
                    pass_on(end, peers)


def pass_on(end: socket.socket, peers: dict[socket.socket, socket.socket]) -> None:
    """Copy what came from one end to the other, its end too."""
    other = peers[end]
    try:
        data = end.recv(CHUNK_BYTES)
        other.sendall(data)
    except OSError:
        data = b""
    if not data:
        for side in (end, other):
            peers.pop(side, None)
            side.close()


if __name__ == "__main__":
    forward(int(sys.argv[1]), int(sys.argv[2]))
