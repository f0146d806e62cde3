"""Prints the peak memory in MB after 300 windows and after 2,300: python memory_worker.py SHARDS."""

import resource
import sys
from itertools import islice
from pathlib import Path

from modalgate.shards.index.table import load_index
from modalgate.shards.stream import ClipRequest, ClipStream


def main() -> None:
    stream = ClipStream(load_index(Path(sys.argv[1])), ClipRequest(("rgb", "audio"), 1, 0.3, 3, 32), 10)
    batches = stream.train()
    for windows in (300, 2000):
        list(islice((None for _ in batches), windows // 10))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
