"""Runs several commands one after the other, and prints the peak memory in MB after each.

python peak_memory.py '[["predict", MODEL, SOURCE], ...]'
"""

import json
import resource
import sys

from modalgate.launch.cli import main


def run(commands: list[list[str]]) -> None:
    for arguments in commands:
        assert main(arguments) == 0
        print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
