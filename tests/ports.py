"""Ports for what a test starts."""

from __future__ import annotations

import random
import socket
from itertools import islice
from pathlib import Path

LOWEST, HIGHEST = 10_000, 65_535
OF_RAY_CLIENT = range(23_000, 24_000)
"""Its server takes these for its clients, from the first on."""
GIVEN_BY_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """So many ports that nobody has and that the kernel gives to nobody.

    Those that it gives to whoever asks for any, a starting Ray takes itself, dozens of them: a port of Ray's
    agents that is taken is a node that "timed out during startup", and one of Ray Client's a head that ends
    two seconds after it said that it runs.
    """
    low, high = _given_by_kernel()
    ports = [p for p in range(LOWEST, HIGHEST + 1) if not low <= p <= high and p not in OF_RAY_CLIENT]
    random.shuffle(ports)
    free = list(islice(filter(_is_free, ports), count))
    assert len(free) == count, f"{len(free)} of {count} ports are free outside of {low} to {high}"
    return free


def _given_by_kernel() -> tuple[int, int]:
    if not GIVEN_BY_KERNEL.exists():
        return 32_768, HIGHEST
    low, high = GIVEN_BY_KERNEL.read_text().split()
    return int(low), int(high)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True
