"""The hub through its real client: push, load by name and revision, load offline, and every error."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from modalgate.fusion import load_bundle, load_encoder
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, push_bundle, save_bundle
from modalgate.fusion.bundle.hub import Repository, fetch, find_repository
from modalgate.fusion.classifier import Classifier
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError, RequestError

from ...hub import TOKEN, Hub
from .tensor_equality import same_tensors

HERE = Repository("lab/hall")
FRESH = """
import sys
from modalgate.fusion import load_encoder

encoder = load_encoder(sys.argv[1])
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("modalgate.")}
print(*sorted(rooms), encoder.width, *encoder.modalities)
"""


@pytest.fixture
def bundle(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> Bundle:
    classifier = Classifier(tiny_backbone(), ["calm", "fight"]).eval()
    return Bundle(classifier, tiny_clip, 3, "violence", "fight", {"steps": 7}, {"auc": 0.75}, "CC-BY-4.0")


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    save_bundle(bundle, tmp_path / "hall")
    return tmp_path / "hall"


def test_pushed_bundle_loads_by_name(hub: Hub, bundle: Bundle, folder: Path) -> None:
    commit = push_bundle(folder, HERE)
    model = hub.models["lab/hall"]
    assert commit == f"{hub.url}/lab/hall/commit/{model.branches['main']}"
    files = model.commits[model.branches["main"]]
    assert set(files) == {".gitattributes", "config.json", "model.safetensors", "README.md"}
    assert files["model.safetensors"] == (folder / "encoder.safetensors").read_bytes()
    loaded = load_bundle("hf://lab/hall")
    assert same_tensors(loaded.model, bundle.model)
    assert (loaded.spec, loaded.positive, loaded.metrics) == (bundle.spec, "fight", {"auc": 0.75})
    assert same_tensors(load_encoder(Path("hf://lab/hall")).backbone, bundle.backbone)


def test_the_card_has_its_header_and_says_how_to_load_it_from_there(hub: Hub, folder: Path) -> None:
    push_bundle(folder, HERE)
    model = hub.models["lab/hall"]
    card = model.commits[model.branches["main"]]["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    assert (header["license"], header["library_name"]) == ("cc-by-4.0", "modalgate")
    assert '    model = load_bundle("hf://lab/hall")\n' in card


def test_a_new_repository_is_private_unless_public_is_asked_for(hub: Hub, folder: Path) -> None:
    push_bundle(folder, HERE)
    push_bundle(folder, Repository("lab/open"), private=False)
    assert {name: model.private for name, model in hub.models.items()} == {"lab/hall": True, "lab/open": False}
    push_bundle(folder, Repository("lab/open"))
    assert not hub.models["lab/open"].private


def test_local_paths_are_not_published(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    command = "modalgate finetune ./mine.yaml data.shards=[/home/ann/day,/home/ann/night] encoder=runs/ann/pretrain"
    command += (
        " model.encoders.rgb.model=timm/resnet18 data.lists=[~/ann/train.txt] out=../ann/runs s3://bucket/shards"
    )
    bundle.provenance = {
        "command": command,
        "data": "market: 9 clips of 3/4 rooms",
        "run": "violence/fold-0",
        "inner": {"start": ["'/home/ann/encoder'"]},
    }
    bundle.metrics = {"auc (40 clips; lists /home/ann/test.txt)": 0.75}
    save_bundle(bundle, tmp_path / "hall")
    push_bundle(tmp_path / "hall", HERE)
    model = hub.models["lab/hall"]
    files = model.commits[model.branches["main"]]
    assert not any(b"ann" in files[name].replace(b"channel", b"") for name in ("config.json", "README.md"))
    loaded = load_bundle("hf://lab/hall")
    assert loaded.provenance == {
        "command": "modalgate finetune mine.yaml data.shards=[day,night] encoder=pretrain "
        "model.encoders.rgb.model=timm/resnet18 data.lists=[train.txt] out=runs s3://bucket/shards",
        "data": "market: 9 clips of 3/4 rooms",
        "run": "violence/fold-0",
        "inner": {"start": ["'encoder'"]},
    }
    assert loaded.metrics == {"auc (40 clips; lists test.txt)": 0.75}


@pytest.mark.slow
def test_branches_commits_and_updates_load(hub: Hub, bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    push_bundle(folder, HERE)
    first = hub.models["lab/hall"].branches["main"]
    with torch.no_grad():
        next(bundle.model.parameters()).add_(1)
    save_bundle(bundle, folder)
    push_bundle(folder, Repository("lab/hall", "trial"))
    assert not same_tensors(load_bundle("hf://lab/hall").model, bundle.model)
    assert same_tensors(load_bundle("hf://lab/hall@trial").model, bundle.model)
    push_bundle(folder, HERE)
    assert same_tensors(load_bundle("hf://lab/hall").model, bundle.model)
    assert not same_tensors(load_bundle(f"hf://lab/hall@{first}").model, bundle.model)
    assert {path.name for path in tmp_path.iterdir()} == {"hall", "hf"}


@pytest.mark.slow
def test_cached_bundle_loads_offline_in_a_new_process(hub: Hub, folder: Path) -> None:
    push_bundle(folder, HERE)
    load_bundle("hf://lab/hall")
    before = len(hub.requests)
    command = [sys.executable, "-c", FRESH, "hf://lab/hall"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fusion", "shards", "8", "rgb", "audio"]
    assert len(hub.requests) == before
    stored = [path for path in (folder.parent / "hf").rglob("*") if path.is_file()]
    assert stored
    assert not any(TOKEN.encode() in path.read_bytes() for path in stored)


def test_a_clone_of_the_repository_is_a_bundle(hub: Hub, bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    push_bundle(folder, HERE)
    found = fetch("hf://lab/hall", ["config.json", "model.safetensors", "README.md"])
    clone = tmp_path / "clone"
    clone.mkdir()
    for path in found.iterdir():
        (clone / path.name).write_bytes(path.read_bytes())
    assert same_tensors(load_bundle(clone).model, bundle.model)
    assert fetch(clone, []) == clone


def test_file_changed_on_the_hub_is_rejected(hub: Hub, folder: Path) -> None:
    push_bundle(folder, HERE)
    files = hub.models["lab/hall"]
    weights = bytearray(files.commits[files.branches["main"]]["model.safetensors"])
    weights[-3] ^= 1
    files.commit("main", {"model.safetensors": bytes(weights)})
    with pytest.raises(DataError, match=r"model.safetensors' has changed since its export"):
        load_bundle("hf://lab/hall")
    files.commit("main", {"config.json": json.dumps({"format_version": 99}).encode()})
    with pytest.raises(RequestError, match="format 99, but this modalgate reads 2: install a newer"):
        load_bundle("hf://lab/hall")


def test_address_differs_from_a_path() -> None:
    assert find_repository("runs/hall") is None
    assert find_repository("C:/hall") is None
    assert find_repository(Path("hf://lab/hall.v2")) == Repository("lab/hall.v2")
    assert find_repository("hf://lab/hall@refs/pr/3") == Repository("lab/hall", "refs/pr/3")
    for wrong in ("hf://hall", "hf://lab/hall/encoder.json", "hf://lab/hall@", "hf://", "hf://lab/ha ll"):
        with pytest.raises(RequestError, match="is not a repository on the hub: give owner/name"):
            find_repository(wrong)


def nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


def stranger(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}X")


def down(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.down = True


def gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (nobody, "does not let you write 'hf://lab/hall': log in with `hf auth login`, or set HF_TOKEN"),
        (stranger, "does not let you write 'hf://lab/hall': log in"),
        (down, "answered 500 for 'hf://lab/hall': a wheel has come off"),
        (gone, "cannot reach http://127.0.0.1:9 for 'hf://lab/hall': check the network"),
        (offline, "cannot reach .* for 'hf://lab/hall': HF_HUB_OFFLINE is set"),
    ],
)
def test_a_push_that_fails_is_one_line(
    trouble: Callable[[Hub, pytest.MonkeyPatch], None],
    message: str,
    hub: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trouble(hub, monkeypatch)
    with pytest.raises(RequestError, match=message) as caught:
        push_bundle(folder, HERE)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not hub.models


def test_licence_unknown_to_the_hub_is_reported(hub: Hub, bundle: Bundle, folder: Path) -> None:
    bundle.licence = "my own"
    save_bundle(bundle, folder)
    with pytest.raises(RequestError, match=r"Invalid metadata in README.md. \"license\" must be one of") as caught:
        push_bundle(folder, HERE)
    assert "\n" not in str(caught.value)
    assert set(hub.models["lab/hall"].branches) == {"main"}
    assert len(hub.models["lab/hall"].commits) == 1


@pytest.mark.parametrize(
    ("trouble", "place", "message"),
    [
        (None, "hf://lab/halls", "'hf://lab/halls' does not exist on http.*, or you have no access: log in"),
        (None, "hf://lab/hall@trail", "'hf://lab/hall' has no revision 'trail'"),
        (None, "hf://lab/empty", "is not a bundle"),
        (down, "hf://lab/hall", "cannot reach .* and it is not in the cache: it answered 500"),
        (gone, "hf://lab/hall", "cannot reach .* and it is not in the cache: check the network"),
        (offline, "hf://lab/hall", "cannot reach .* and it is not in the cache: HF_HUB_OFFLINE is set"),
        (nobody, "hf://lab/secret", "'hf://lab/secret' does not exist on http.*, or you have no access: log in"),
    ],
)
def test_unloadable_bundle_is_one_line(
    trouble: Callable[[Hub, pytest.MonkeyPatch], None] | None,
    place: str,
    message: str,
    hub: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push_bundle(folder, HERE)
    push_bundle(folder, Repository("lab/secret"), private=True)
    hub.models["lab/empty"] = type(hub.models["lab/hall"])(False)
    hub.models["lab/empty"].commit("main", {".gitattributes": b""})
    if trouble is not None:
        trouble(hub, monkeypatch)
    with pytest.raises(RequestError, match=message) as caught:
        load_bundle(place)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
