"""Addresses of live sources: the URL of a stream, or the number of a camera at this machine."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import av

from ..errors import RequestError, choice_error
from ..media.credentials import masked

PROTOCOLS = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "tcp")


@dataclass(frozen=True)
class Address:
    """What FFmpeg opens.

    - `url`: URL or device.
    - `container_format`: FFmpeg's name of the format. None: guessed.
    - `options`: FFmpeg's options.
    """

    url: str
    container_format: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The URL without user name and password."""
        return masked(self.url)


def find_address(text: str) -> Address | None:
    """Returns the address of the stream or camera number that `text` names; None if it is a path.

    Raises `RequestError` for an unknown protocol and for a camera that does not exist.
    """
    protocol, separator, rest = text.partition("://")
    if separator:
        if protocol.lower() not in PROTOCOLS:
            raise choice_error("protocol", protocol, PROTOCOLS)
        if not rest.strip("/"):
            raise RequestError(f"'{masked(text)}' names no host: give {protocol}://HOST/PATH")
        # Over UDP, which FFmpeg tries first, a camera's pictures have holes.
        options = {"rtsp_transport": "tcp"} if protocol.lower().startswith("rtsp") else {}
        return Address(text, None, options)
    if text.isdecimal() and text.isascii() and not Path(text).exists():
        return _camera(int(text))
    return None


def _camera(number: int, platform: str = sys.platform) -> Address:
    if platform == "darwin":
        return Address(str(number), "avfoundation", {"framerate": "30"})
    if platform == "win32":
        names = [device.description or device.name for device in av.enumerate_input_devices("dshow")]
        if number >= len(names):
            raise RequestError(f"no camera {number}: there are {len(names)}")
        return Address(f"video={names[number]}", "dshow")
    return Address(f"/dev/video{number}", "v4l2")
