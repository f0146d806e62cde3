"""Class paths: their form, checks without an import, and the packages that a bundle may import."""

import sys
from pathlib import Path

import pytest
from modalgate.fusion.mechanisms.gates import Fusion
from modalgate.fusion.own_classes import (
    allowing,
    check_allowed,
    check_path,
    class_path,
    is_path,
    load_class,
    package_of,
    split_key,
)
from modalgate.fusion.spec import BackboneSpec, EncoderSpec, own_packages
from modalgate.shards.errors import RequestError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose import would be noticed, with an inner module."""
    (tmp_path / "oddlab" / "inner").mkdir(parents=True)
    for place in ("__init__.py", "inner/__init__.py"):
        (tmp_path / "oddlab" / place).write_text("raise RuntimeError('imported')\n")
    (tmp_path / "oddlab" / "inner" / "parts.py").write_text("class Part: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "oddlab"


def test_dotted_key_keeps_a_class_path_together() -> None:
    for key, parts in (
        ("train.steps", ["train", "steps"]),
        ("name", ["name"]),
        ("tasks.mine.inner.tasks:Task", ["tasks", "mine.inner.tasks:Task"]),
        ("tasks.mine.tasks:Task.arguments.scale", ["tasks", "mine.tasks:Task", "arguments", "scale"]),
    ):
        assert split_key(key) == parts
        assert ".".join(parts) == key


def test_a_path_is_checked_without_an_import(package: str) -> None:
    check_path(f"{package}.inner.parts:Part")
    assert package not in sys.modules
    with pytest.raises(RequestError, match=r"module 'oddlab.inner.prts' not found; install the package 'oddlab'"):
        check_path(f"{package}.inner.prts:Part")
    with pytest.raises(RequestError, match=r"'not a name:Part' is not a class path: write package"):
        check_path("not a name:Part")


def test_classes_load_by_path() -> None:
    path = class_path(Fusion)
    assert (is_path(path), package_of(path)) == (True, "modalgate")
    assert load_class(path, Fusion, "fusion") is Fusion
    with pytest.raises(RequestError, match=r"fusion 'collections:Counter' is not a subclass of .*Fusion"):
        load_class("collections:Counter", Fusion, "fusion")
    with pytest.raises(RequestError, match="module 'collections' 'Conter': did you mean 'Counter'"):
        load_class("collections:Conter", dict, "counter")


def test_package_must_be_allowed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ["softmax", f"{package}.inner.parts:Part"]
    check_allowed(paths[:1], (), "here")
    with pytest.raises(RequestError, match=r"bundle 'here' needs the class 'oddlab.*give allow=\(\"oddlab\",\)"):
        check_allowed(paths, ("odd", "lab"), "here")
    check_allowed(paths, (package,), "here")
    with allowing([package]):
        check_allowed(paths, (), "here")
    with pytest.raises(RequestError):
        check_allowed(paths, (), "here")
    monkeypatch.setenv("MODALGATE_ALLOW", f"other,{package}")
    check_allowed(paths, (), "here")
    with pytest.raises(RequestError, match="install the package 'nolab'"):
        check_allowed(["nolab.parts:Part"], ("nolab",), "here")
    assert package not in sys.modules


def test_spec_lists_its_packages() -> None:
    encoders = {"rgb": EncoderSpec("lab.nets:Net"), "audio": EncoderSpec("timm/x")}
    assert own_packages(BackboneSpec(fusion="gates.mine:Gate", encoders=encoders)) == ["gates", "lab"]
    assert own_packages(None, None, "softmax", "other:Decision") == ["other"]
