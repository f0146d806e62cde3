"""The message for an unknown choice."""

import errno

import pytest
from modalgate.shards.errors import DataError, RequestError, choice_error, raise_if_exhausted


def test_the_nearest_choice_and_all_of_a_few_are_named() -> None:
    error = choice_error("fusion", "sofmax", ["concat", "softmax", "sigmoid"])
    assert isinstance(error, RequestError)
    assert str(error) == "unknown fusion 'sofmax': did you mean 'softmax'? (known: concat, sigmoid, softmax)"


def test_no_suggestion_without_a_near_choice() -> None:
    assert str(choice_error("fusion", "zzz", ["concat"])) == "unknown fusion 'zzz' (known: concat)"


def test_many_choices_are_not_listed() -> None:
    names = [f"network_{number}" for number in range(40)]
    assert (
        str(choice_error("network", "network_1x", names)) == "unknown network 'network_1x': did you mean 'network_1'?"
    )


def test_an_empty_list_of_choices() -> None:
    assert str(choice_error("label column", "label", [])) == "unknown label column 'label' (none are known)"


def test_the_two_errors_differ() -> None:
    assert not issubclass(DataError, RequestError)
    assert not issubclass(RequestError, DataError)


def test_too_many_open_files_are_a_wrong_request() -> None:
    raise_if_exhausted(FileNotFoundError(errno.ENOENT, "absent"))
    raise_if_exhausted(ValueError("damaged"))
    with pytest.raises(RequestError, match="too many files are open"):
        raise_if_exhausted(OSError(errno.EMFILE, "too many"))
