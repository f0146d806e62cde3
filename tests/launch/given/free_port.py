"""A port for the first process of a group, which opens it only after it has started."""

import random
import socket


def free_port() -> int:
    """A free port of this machine, below the range that the system gives to sockets that ask for any port."""
    while True:
        # Not from the seeded generators: tests in other processes must draw other ports.
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
