"""`modalgate probe` in batches of two clips. After `HOLD` batches a process waits until it is killed."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from modalgate.launch import cli
from modalgate.launch.jobs import probing
from modalgate.tasks.features import cache


def main(arguments: Sequence[str]) -> int:
    plain = cache.feature_batches

    def held(*rest: Any) -> Iterator[Any]:
        for number, batch in enumerate(plain(*rest), start=1):
            print("a batch is extracted")
            # The caller stores the batch before it takes the next one.
            yield batch
            if str(number) == os.environ.get("HOLD"):
                time.sleep(3600)

    probing.BATCH_SIZE, cache.feature_batches = 2, held  # pyright: ignore[reportPrivateImportUsage]
    return cli.main(arguments)
