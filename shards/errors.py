"""The two ways a command fails, and the nearest valid choice both of them name."""

from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(Exception):
    """The request is wrong (exit status 2): a key, a name or a path a person can correct."""


class DataError(Exception):
    """The data is bad (exit status 3): too many unreadable inputs, or a failed verification."""


def choice_error(what: str, given: str, choices: Iterable[str]) -> RequestError:
    """A `RequestError` that names `given`, the nearest of `choices` and, if few, all of them."""
    known = sorted(choices)
    near = get_close_matches(given, known, n=1, cutoff=0.4)
    message = f"unknown {what} '{given}'"
    if near:
        message += f": did you mean '{near[0]}'?"
    if len(known) <= 12:
        message += f" (known: {', '.join(known)})" if known else " (none are known)"
    return RequestError(message)
