"""Embeds like `modalgate embed`, and kills itself before the n-th file gets its final name.

python killed_embed.py BUNDLE SOURCE, with "N OUT" on every line of standard input
"""

import os
import signal
import sys
from pathlib import Path

import torch
from modalgate.launch.jobs.embedding_job import embed


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        last, out = line.split(maxsplit=1)
        # A fork: starting Python anew would take longer than the embedding.
        child = os.fork()
        if not child:
            embed_and_die(Path(sys.argv[1]), sys.argv[2], Path(out.strip()), int(last))
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)


def embed_and_die(bundle: Path, source: str, out: Path, last: int) -> None:
    replace, count = os.replace, 0

    def counted(*arguments: object, **named: object) -> object:
        nonlocal count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*arguments, **named)  # pyright: ignore

    os.replace = counted  # pyright: ignore
    embed(bundle, source, out, workers=0, max_rejected=0.5, by_modality=True)


if __name__ == "__main__":
    main()
