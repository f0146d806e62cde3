"""Limits on a bundle from an unknown sender, and a model built within them.

A bundle's facts are data: they name networks and sizes. A small file may name sizes that fill the memory, and a
network's arguments may name files and addresses. So arguments must be on a whitelist, and the model is first built
without memory, on the meta device, and compared with the tensors in the weights file.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from ...shards.errors import RequestError
from ..encoders.network_arguments import check_arguments
from ..encoders.weights import first_difference
from ..mechanisms.gates import unused_tensors
from ..spec import EncoderSpec

Model = TypeVar("Model", bound=nn.Module)

# Bytes of the facts and of the card, and of the list of tensors in the weights file.
MOST_TEXT = 16 * 2**20
MOST_HEADER = 16 * 2**20
# Size of a whole number, length of a string, depth of nesting and number of values in the settings of a model.
MOST_COUNT, MOST_LETTERS, MOST_DEPTH, MOST_VALUES = 2**40, 4096, 8, 400_000
MOST_CLASSES, MOST_VIEWS = 100_000, 1000
# Depth of the facts as a whole. Python's own limit depends on the caller.
MOST_NESTED = 64
# Bytes of tensors that a network computes for itself, which are not in the weights file.
MOST_COMPUTED = 2**28


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises `ValueError` if it is not JSON in UTF-8, if it is larger than `MOST_TEXT`, and if it is nested too deeply.
    """
    if path.stat().st_size > MOST_TEXT:
        raise ValueError(f"it has {path.stat().st_size} bytes, more than {MOST_TEXT}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > MOST_NESTED:
            raise ValueError("it is nested too deeply")
        lists = [
            entry.values() if isinstance(entry, dict) else entry for entry in level if isinstance(entry, dict | list)
        ]
        level = [part for entries in lists for part in entries]
    return content


def check_settings(facts: Mapping[str, Any]) -> None:
    """Checks the facts that a model is built and applied with.

    Raises `ValueError` for a value of a wrong type or beyond the limits of this file.
    """
    for key in ("backbone", "modalities", "clip", "application", "segments", "classes", "positive", "decision"):
        _check_plain(facts.get(key), key)
    names, classes = facts["modalities"], facts["classes"]
    if not _texts(names) or not 0 < len(names) == len(set(names)) <= 64:
        raise ValueError("modalities are not a list of distinct names")
    if classes is not None and (not _texts(classes) or not 0 < len(classes) == len(set(classes)) <= MOST_CLASSES):
        raise ValueError("classes are not a list of distinct names")
    if type(facts["segments"]) is not int or not 0 < facts["segments"] <= MOST_VIEWS:
        raise ValueError(f"segments are {facts['segments']!r}, not a number from 1 to {MOST_VIEWS}")
    positive = facts["positive"]
    if positive is not None and positive not in (classes or ()):
        raise ValueError(f"positive is {positive!r}, which is not among the classes")
    for key in ("task", "licence", "decision"):
        if not isinstance(facts[key], str | None):
            raise ValueError(f"{key} is not text")
    metrics = facts["metrics"]
    if not isinstance(facts["provenance"], dict) or not isinstance(metrics, dict):
        raise ValueError("provenance and metrics are not objects")
    if not all(isinstance(value, int | float) for value in metrics.values()):
        raise ValueError("metrics are not numbers")


def check_encoders(encoders: Mapping[str, EncoderSpec]) -> None:
    """Raises `ValueError` for an argument that the constructor of an encoder's network does not have."""
    for name, spec in encoders.items():
        try:
            check_arguments(spec.model or "", spec.arguments or {})
        except RequestError as error:
            raise ValueError(f"encoder of {name}: {error}") from error


def build_within(build: Callable[[], Model], weights: Path, trusted: bool = False) -> Model:
    """Builds a model whose tensors must be those of `weights`. The global random state does not change.

    build: builds the model with random weights.
    weights: a safetensors file. Only its list of tensors is read.
    trusted: the model has classes of packages that the caller allows. They need not work on the meta device.

    Raises `ValueError` if the tensors differ, before memory is allocated for them.
    """
    held = _listed(weights)
    with torch.random.fork_rng(devices=[]):
        if not trusted:
            with torch.device("meta"), _at_most(1000 + 20 * len(held)):
                planned = build()
            needed = planned.state_dict()
            if reason := first_difference(needed, held, unused_tensors(planned)):
                raise ValueError(reason)
            computed = (value for key, value in planned.named_buffers() if key not in needed)
            size = sum(value.numel() * value.element_size() for value in computed)
            if size > MOST_COMPUTED:
                raise ValueError(f"its networks compute tables of {size} bytes, more than {MOST_COMPUTED}")
        return build()


def _listed(weights: Path) -> dict[str, Tensor]:
    """Tensors without memory, with the names and shapes of those in a safetensors file."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"the list of tensors has {length} bytes, more than {MOST_HEADER}")
    with safe_open(weights, "pt") as file:
        return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Raises `ValueError` once this thread has built more than `count` modules, parameters and buffers."""
    thread, built = threading.get_ident(), 0

    def add(*_: Any) -> None:
        nonlocal built
        if threading.get_ident() != thread:
            return
        built += 1
        if built > count:
            raise ValueError(f"it describes more than {count} modules, but its weights file holds few tensors")

    handles = [
        torch_modules.register_module_module_registration_hook(add),
        torch_modules.register_module_parameter_registration_hook(add),
        torch_modules.register_module_buffer_registration_hook(add),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _check_plain(value: Any, place: str) -> None:
    """Raises `ValueError` for numbers that are not finite or too large, and for long, deep or large content."""
    left, count = [(value, 0)], 0
    while left:
        entry, depth = left.pop()
        count += 1
        if depth > MOST_DEPTH or count > MOST_VALUES:
            raise ValueError(f"{place} holds too many values")
        if isinstance(entry, dict):
            left += [(part, depth + 1) for pair in entry.items() for part in pair]
        elif isinstance(entry, list):
            left += [(part, depth + 1) for part in entry]
        elif isinstance(entry, str) and len(entry) > MOST_LETTERS:
            raise ValueError(f"{place} holds a text of {len(entry)} letters")
        elif isinstance(entry, float) and not math.isfinite(entry):
            raise ValueError(f"{place} holds a number that is not finite")
        elif isinstance(entry, int) and abs(entry) > MOST_COUNT:
            raise ValueError(f"{place} holds the number {str(entry)[:20]}, which is too large")
