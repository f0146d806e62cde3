"""The two errors that end a command, and the message that suggests the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(Exception):
    """A wrong request (exit status 2): a key, name or path that the user can correct."""


class DataError(Exception):
    """Bad data (exit status 3): too many unreadable inputs, or a failed verification."""


def choice_error(what: str, given: str, choices: Iterable[str]) -> RequestError:
    """Returns a `RequestError` that names `given` and the nearest of `choices`, and lists all of up to 12 choices.

    >>> print(choice_error("modality", "deph", ["rgb", "depth"]))
    unknown modality 'deph': did you mean 'depth'? (known: depth, rgb)
    """
    known = sorted(choices)
    near = get_close_matches(given, known, n=1, cutoff=0.4)
    message = f"unknown {what} '{given}'"
    if near:
        message += f": did you mean '{near[0]}'?"
    if len(known) <= 12:
        message += f" (known: {', '.join(known)})" if known else " (none are known)"
    return RequestError(message)
