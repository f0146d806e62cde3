"""Files of a folder that this process holds open. Other descriptors, such as sockets and pipes, do not count."""

import os
from pathlib import Path


def open_files(folder: Path) -> list[str]:
    """Paths of all open descriptors below `folder`, sorted; a file that is open twice is there twice."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return sorted(path for path in found if Path(path).is_relative_to(folder.resolve()))
