"""What the boards need to start."""

import pytest
from modalgate.launch.runs.boards import need_tensorboard
from modalgate.shards.errors import RequestError


def test_without_its_package_tensorboard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    need_tensorboard()
    monkeypatch.setattr("modalgate.launch.runs.boards.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'modalgate\[tensorboard\]'"):
        need_tensorboard()
