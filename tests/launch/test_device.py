"""What the launcher and the switches ask of torch."""

import pytest
from modalgate.launch.device import make_accelerator
from modalgate.shards.errors import RequestError


def test_one_process_in_the_place_of_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --cpu --num_processes 2` gives the one process that it starts."""
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RequestError, match="starts one process, which would train alone: for several on CPUs use"):
        make_accelerator("fp32")
    monkeypatch.delenv("MASTER_PORT")  # without --num_processes it is one process that is asked for
    make_accelerator("fp32")
