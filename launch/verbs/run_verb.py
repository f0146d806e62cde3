"""Runs one command line."""

from collections.abc import Callable, Sequence
from typing import Any


def run_verb(command: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Runs one command of the root `command` and returns its exit status.

    Raises what the command raises, and `KeyboardInterrupt` if it was interrupted.
    """
    words = _with_value("--resume", "auto", list(arguments))
    status = command(words, prog_name="modalgate", standalone_mode=False)
    if status == 130:  # newer versions of typer turn Ctrl-C into this status
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _with_value(option: str, value: str, given: list[str]) -> list[str]:
    """`--resume auto` as one word and `--resume` alone as `--resume=yes`: the parser has no optional values."""
    words: list[str] = []
    for before, word in zip(["", *given], given, strict=False):
        if word == value and before == option:
            words[-1] = f"{option}={value}"
        else:
            words.append(f"{option}=yes" if word == option else word)
    return words
