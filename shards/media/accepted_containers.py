"""Check the container format of files from untrusted senders."""

from pathlib import Path

from av.error import ArgumentError

from .container_io import open_media

# Containers that hold their own media. Playlists (HLS, concat, SDP) are excluded: FFmpeg would open any file or
# address that they name.
CONTAINERS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "mjpeg"),
    *(
        "h264",
        "hevc",
        "ivf",
        "obu",
        "ogg",
        "flv",
        "asf",
        "mxf",
        "nut",
        "dv",
        "wav",
        "w64",
        "mp3",
        "flac",
        "aac",
        "ac3",
    ),
    *("amr", "aiff", "au", "caf"),
)


def check_container(path: Path) -> float:
    """Returns the duration in seconds from the header of a media file; 0 if the header does not store it.

    Raises `ValueError` for a format that is not in `CONTAINERS`, and the errors of `open_media`.
    """
    try:
        with open_media(path, options={"format_whitelist": ",".join(CONTAINERS)}) as container:
            return float(container.duration or 0) / 1_000_000
    except ArgumentError as error:
        raise ValueError("its format is not accepted: give a file that contains its own video and sound") from error
