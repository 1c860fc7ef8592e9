"""The guard that keeps every test offline guards."""

from __future__ import annotations

import socket

import pytest


def test_the_network_is_out_of_reach() -> None:
    with pytest.raises(AssertionError, match="reach"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match="look up"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_this_machine_is_within_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        assert near.getpeername() == server.getsockname()
