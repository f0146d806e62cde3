"""Names and arguments read from the source equal those of the imported classes."""

from inspect import signature

import pytest
from modalgate.fusion import mechanisms_by_name
from modalgate.fusion.mechanisms_by_name import FUSIONS as MECHANISMS
from modalgate.launch.config.source_names import FUSIONS, TASKS, arguments_of, check_registered, registered
from modalgate.shards.errors import RequestError
from modalgate.ssl import tasks_by_name
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS


def test_names_and_arguments_are_those_of_the_classes() -> None:
    for table, classes, given in (
        (TASKS, PRETEXT_TASKS, tasks_by_name.GIVEN),
        (FUSIONS, MECHANISMS, mechanisms_by_name.GIVEN),
    ):
        assert registered(*table) == {name: kind.__name__ for name, kind in classes.items()}
        for name, kind in classes.items():
            assert arguments_of(*table, name) == set(signature(kind).parameters) - set(given), name


def test_the_nearest_choice_is_named() -> None:
    check_registered("pretext task", "task", TASKS, "clip_order", ["streams"])
    with pytest.raises(RequestError, match="unknown pretext task 'clip_ordr': did you mean 'clip_order'"):
        check_registered("pretext task", "task", TASKS, "clip_ordr", [])
    with pytest.raises(RequestError, match="unknown argument of task clip_order 'stream': did you mean 'streams'"):
        check_registered("pretext task", "task", TASKS, "clip_order", ["stream"])
