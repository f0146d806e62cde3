"""Which container a file is allowed to be, where it comes from a stranger."""

from pathlib import Path

from av.error import ArgumentError

from .container_io import open_media

# Containers that hold their media themselves. Playlists (HLS, concat, SDP) are not among them: FFmpeg would open
# whatever files and addresses they name.
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
    """The seconds that a media file says it lasts, 0 where it does not say.

    Raises `ValueError` for a format that is not one of `CONTAINERS`, and what `open_media` raises.
    """
    try:
        with open_media(path, options={"format_whitelist": ",".join(CONTAINERS)}) as container:
            return float(container.duration or 0) / 1_000_000
    except ArgumentError as error:
        raise ValueError("its format is not accepted: give a file that holds its pictures and its sound") from error
