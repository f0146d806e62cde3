"""Check the container format of files from untrusted senders."""

from pathlib import Path

from .container_io import CONTAINERS, open_media


def check_container(path: Path) -> float:
    """Returns the duration in seconds from the header of a media file; 0 if the header does not store it.

    Raises `ValueError` for a format that is not in `CONTAINERS`, and the errors of `open_media`.
    """
    with open_media(path, options={"format_whitelist": CONTAINERS}) as container:
        return float(container.duration or 0) / 1_000_000
