"""Packs like `modalgate pack`, and kills itself before the n-th file gets its final name or folder is removed.

python killed_pack.py SOURCE OUT N
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack

SETTINGS = PackSettings(modalities=("rgb", "audio", "inertial"), size=32, fps=10.0, samples_per_shard=4)


def main() -> None:
    for line in sys.stdin:
        last, out = line.split(maxsplit=1)
        # A fork: starting Python anew would take longer than the packing.
        child = os.fork()
        if not child:
            pack_and_die(Path(sys.argv[1]), Path(out.strip()), int(last))
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)


def pack_and_die(source: Path, out: Path, last: int) -> None:
    count = 0

    def counted(done: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done(*arguments, **named)

        return call

    os.replace, shutil.rmtree = counted(os.replace), counted(shutil.rmtree)  # pyright: ignore
    pack(source, out, SETTINGS, workers=1)


if __name__ == "__main__":
    main()
