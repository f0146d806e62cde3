"""Relays numbers from two worker processes, prints their ids and its own, and kills itself in the middle.

python relayed.py
"""

import os
import signal
import sys
from collections.abc import Iterator

from modalgate.shards.live.readers import relay


def count(item: int) -> Iterator[int]:
    while True:
        yield os.getpid()


if __name__ == "__main__":
    seen = set()
    for _, piece in relay(count, [0, 1], 2):
        seen.add(piece)
        if len(seen) == 2:
            print(*seen)
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
