"""The two errors that end a command, and the message that suggests the nearest valid choice."""

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(Exception):
    """A wrong request (exit status 2): a key, name or path that the user can correct."""


class DataError(Exception):
    """Bad data (exit status 3): too many unreadable inputs, or a failed verification."""


def raise_if_exhausted(error: BaseException) -> None:
    """Raises `RequestError` if `error` says that too many files are open: then no file is at fault."""
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE):
        raise RequestError(
            f"too many files are open ({os.strerror(number)}): raise the limit with `ulimit -n`, or use fewer workers"
        ) from error


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
