"""Credentials in URLs are for whoever opens them, not for files and screens."""

import re
from typing import Any

_USER = re.compile(r"(?<=://)[^/\s'\"]*@")


def masked(text: str) -> str:
    """`text` with the user name and password of every URL in it as `***`."""
    return _USER.sub("***@", text)


def masked_values(value: Any) -> Any:
    """The same in all texts of nested dicts and lists."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_values(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [masked_values(entry) for entry in value]
    return value
