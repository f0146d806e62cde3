"""The command line with `ownlab` on its path, for processes that are forked."""

import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    from modalgate.launch import cli

    return cli.main(arguments)
