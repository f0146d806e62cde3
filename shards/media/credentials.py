"""Mask credentials in URLs, which must not reach files and screens."""

import re
from typing import Any

_USER = re.compile(r"(?<=://)[^/\s'\"]*@")


def masked(text: str) -> str:
    """Returns `text` with user name and password of every URL replaced by `***`.

    >>> masked("rtsp://admin:secret@camera/1")
    'rtsp://***@camera/1'
    """
    return _USER.sub("***@", text)


def masked_values(value: Any) -> Any:
    """Masks all strings in nested dicts and lists."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_values(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [masked_values(entry) for entry in value]
    return value
