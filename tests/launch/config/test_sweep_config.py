"""The shipped sweep, with its command line filled in by the code of wandb's agent."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from modalgate.launch.cli import main
from modalgate.launch.config.load import load_config
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

SWEEP = yaml.safe_load((Path(__file__).parents[3] / "launch" / "config" / "sweep.yaml").read_text(encoding="utf-8"))


def values(parameter: dict[str, Any]) -> list[Any]:
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def filled(chosen: dict[str, Any]) -> list[str]:
    """The command line for the `chosen` values."""
    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    macros |= {"program": [SWEEP["program"]], "env": ["/usr/bin/env"]}
    words = []
    for word in create_sweep_command(list(SWEEP["command"])):
        words += macros[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return words


def test_pretrain_accepts_every_value_of_every_parameter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHARDS", "packed")
    monkeypatch.setenv("WANDB_RUN_ID", "a1b2c3d4")
    columns = {name: values(parameter) for name, parameter in SWEEP["parameters"].items()}
    longest = max(map(len, columns.values()))
    for number in range(longest):
        chosen = {name: given[number % len(given)] for name, given in columns.items()}
        program, verb, config, *settings = filled(chosen)[1:]
        assert (program, verb) == ("modalgate", "pretrain")
        loaded: Any = load_config(verb, config, settings)
        assert (loaded.name, loaded.data.shards, loaded.wandb) == ("sweep-a1b2c3d4", "packed", "online")
        for name, value in chosen.items():
            found = loaded
            for key in name.split("."):
                found = found[key] if isinstance(found, dict) else getattr(found, key)
            assert found == value, name
        assert main(["config", "check", config, *settings]) == 0
        assert capsys.readouterr().out == f"config '{config}' is valid for `modalgate pretrain`\n"


def test_sweep_metric_is_logged_by_the_online_probe() -> None:
    assert SWEEP["metric"] == {"name": "probe/knn", "goal": "maximize"}
    assert any(word.startswith("probe=") for word in SWEEP["command"])
