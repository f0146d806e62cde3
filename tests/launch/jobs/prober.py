"""`modalgate probe` in batches of two clips, each given the time in which it can be interrupted."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from modalgate.launch import cli
from modalgate.launch.jobs import probing
from modalgate.tasks.features import cache


def main(arguments: Sequence[str]) -> int:
    plain = cache.feature_batches

    def slowly(*rest: Any) -> Iterator[Any]:
        for batch in plain(*rest):
            print("a batch is extracted")
            yield batch
            time.sleep(0.05)

    probing.BATCH_SIZE, cache.feature_batches = 2, slowly  # pyright: ignore[reportPrivateImportUsage]
    return cli.main(arguments)
