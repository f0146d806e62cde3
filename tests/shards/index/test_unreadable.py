"""The reason why a file cannot be read, and errors that are no fault of the file."""

import errno

import pytest
from av.error import FFmpegError
from modalgate.shards.errors import RequestError
from modalgate.shards.index.unreadable import UNREADABLE, reason_of


def test_reasons_are_one_line() -> None:
    assert reason_of(ValueError("first\nsecond")) == "first"
    assert reason_of(FileNotFoundError(2, "No such file")) == "No such file"
    assert reason_of(MemoryError("12 GB")) == "not enough memory (12 GB)"
    assert reason_of(EOFError()) == "EOFError"


@pytest.mark.parametrize("kind", [OSError, FFmpegError])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_no_fault_of_the_file(kind: type[OSError], number: int) -> None:
    with pytest.raises(RequestError, match=r"too many files are open .*ulimit -n"):
        reason_of(kind(number, "too many"))


def test_a_wrong_request_is_not_a_damaged_file() -> None:
    assert not issubclass(RequestError, UNREADABLE)
