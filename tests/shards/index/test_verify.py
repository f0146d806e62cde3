"""Every kind of damage to a shard folder is found and named."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modalgate.shards.clips.contact_sheet import read_member
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, Sample, load_index
from modalgate.shards.index.verify import verify
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing import remux
from modalgate.shards.packing.pack import pack

ALL = ("rgb", "flow", "depth", "audio", "inertial")


@pytest.fixture(scope="module")
def whole(folder: Path, small: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(folder, out, small(modalities=ALL), workers=1)
    return out


@pytest.fixture
def shards(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "shards")
    return tmp_path / "shards"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "index.json").read_text())
    change(content)
    (folder / "index.json").write_text(json.dumps(content))


def flip(index: Index, key: str, suffix: str, place: int | float = 0.5) -> str:
    """Inverts one byte of a member at `place` of its length; returns the shard."""
    (sample,) = [sample for sample in index.samples if sample.key == key]
    offset, size = sample.members[suffix]
    path = index.folder / sample.shard
    data = bytearray(path.read_bytes())
    data[offset + int(size * place)] ^= 0xFF
    path.write_bytes(data)
    return sample.shard


def test_an_intact_folder(shards: Path) -> None:
    assert verify(shards) == []


@pytest.mark.parametrize("suffix", ["rgb.mp4", "flow.mp4", "depth.mkv", "audio.wav", "inertial.npy"])
def test_a_flipped_byte(shards: Path, suffix: str) -> None:
    """The message names shard, clip and member, and nothing else is reported. The pixels may still decode."""
    shard = flip(load_index(shards), "c2", suffix, 0.6)
    problems = verify(shards)
    assert len(problems) == 2
    assert problems[0].startswith(f"'{shard}': its SHA-256")
    assert problems[1].startswith(f"'{shard}': clip 'c2', {suffix}: ")


def test_a_flipped_byte_between_members(shards: Path) -> None:
    path = shards / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    (problem,) = verify(shards)
    assert problem.startswith("'shard-000001.tar': its SHA-256")


def test_damaged_json(shards: Path) -> None:
    shard = flip(load_index(shards), "c1", "json", 0)
    assert any(problem.startswith(f"'{shard}': clip 'c1', json: damaged") for problem in verify(shards))


@pytest.mark.parametrize("name", ALL)
def test_an_undecodable_member(
    folder: Path, small: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A faulty packer's checksums match its own output: only decoding finds the shard, clip and member."""
    module = sys.modules["modalgate.shards.packing.encode"]
    encode, number = module._encode, 0

    def rubbish(wanted: str, *arguments: Any) -> bytes:
        nonlocal number
        data = encode(wanted, *arguments)
        number += wanted == name
        return bytes(len(data)) if wanted == name and number == 2 else data

    monkeypatch.setattr(module, "_encode", rubbish)
    index = pack(folder, tmp_path / "out", small(modalities=ALL), workers=1)
    (problem,) = verify(tmp_path / "out")
    (sample,) = [sample for sample in index.samples if sample.key == ("c2" if name == "audio" else "c1")]
    assert problem.startswith(f"'{sample.shard}': clip '{sample.key}', {modality(name).suffix}: cannot be decoded (")


def test_missing_shard(shards: Path) -> None:
    (shards / "shard-000000.tar").unlink()
    assert verify(shards) == ["'shard-000000.tar': missing"]


def test_shard_cut_short(shards: Path) -> None:
    path = shards / "shard-000001.tar"
    os.truncate(path, path.stat().st_size // 2)
    problems = verify(shards)
    assert any("bytes, the index says" in problem for problem in problems)
    assert all(problem.startswith("'shard-000001.tar': ") for problem in problems)
    assert any("clip '" in problem for problem in problems)


def test_stray_shard(shards: Path) -> None:
    shutil.copy(shards / "shard-000000.tar", shards / "shard-000007.tar")
    assert verify(shards) == ["'shard-000007.tar' is not in the index"]


def move(content: dict[str, Any]) -> None:
    content["samples"][0]["members"]["depth.mkv"][0] += 512


def drop_clip(content: dict[str, Any]) -> None:
    del content["samples"][0]


def repeat_clip(content: dict[str, Any]) -> None:
    content["samples"].append(content["samples"][0])


def drop_member(content: dict[str, Any]) -> None:
    del content["samples"][0]["members"]["inertial.npy"]


def relabel(content: dict[str, Any]) -> None:
    content["samples"][0]["labels"]["label"] = "other"


def miscount(content: dict[str, Any]) -> None:
    content["shards"][0]["present"]["audio"] += 1


def escape(content: dict[str, Any]) -> None:
    content["shards"][0]["name"] = "../shards/shard-000000.tar"


def reassign(content: dict[str, Any]) -> None:
    content["samples"][0]["shard"] = "shard-000009.tar"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (move, "depth.mkv' is at"),
        (drop_clip, "is in the tar and not in the index"),
        (repeat_clip, "occurs 2 times in the index"),
        (drop_member, "clips with inertial and lists"),
        (relabel, "its labels or its duration differ"),
        (miscount, "clips with audio and lists"),
        (escape, "instead of a file name"),
        (reassign, "a shard the index does not list"),
    ],
)
def test_an_index_that_disagrees(shards: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    edit(shards, change)
    problems = verify(shards)
    assert any(said in problem for problem in problems)
    assert all("SHA-256" not in problem for problem in problems)


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no index\.json"):
        verify(tmp_path)


def test_frames_that_need_more_than_their_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied intra refresh, as earlier versions packed it: its checksums are right, and windows of it are wrong."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).repeat(8, axis=0).repeat(8, axis=1)
    frames = np.stack([np.roll(noise, 2 * number, axis=1) for number in range(60)]).astype(np.uint8)
    (tmp_path / "in").mkdir()
    options = {"crf": "18", "bf": "0", "g": "8", "x264-params": "intra-refresh=1:keyint=8"}
    write_video(tmp_path / "in" / "a.mp4", frames, 10, options=options)
    monkeypatch.setattr(remux, "is_idr", lambda packet, stream: True)
    settings = PackSettings(modalities=("rgb",), size=32, fps=10.0)
    pack(tmp_path / "in", tmp_path / "out", settings, workers=1)
    (problem,) = verify(tmp_path / "out")
    assert re.search(r"clip 'a', rgb.mp4: \d+ of 60 frames differ when decoding starts at their key frame", problem)


ODD_JSON = ["[]", "3", "null", '{"modalities": []}', '{"modalities": {"rgb": 1}, "labels": {}, "duration": 1}']


@pytest.mark.parametrize("text", [*ODD_JSON, '{"modalities": {}, "labels": null, "duration": 1}'])
def test_json_of_another_form_is_named(shards: Path, text: str) -> None:
    replace_member(shards, "c2", "json", text.encode().ljust)
    assert any("clip 'c2', json: damaged (" in problem for problem in verify(shards))


@pytest.mark.parametrize("rate", [None, 0, True, "50"])
def test_a_signal_without_a_valid_rate_is_named(shards: Path, rate: object) -> None:
    """Training counts such a clip as damaged."""
    content = json.loads(read_member(load_index(shards), by_key(shards, "c2"), "json"))
    if rate is None:
        del content["modalities"]["inertial"]["rate"]
    else:
        content["modalities"]["inertial"]["rate"] = rate
    text = json.dumps(content, separators=(",", ":"))
    replace_member(shards, "c2", "json", text.encode().ljust)
    shard = by_key(shards, "c2").shard
    said = (
        f"'{shard}': clip 'c2', inertial.npy: its JSON gives inertial the rate {rate!r}, not a number of Hz above 0"
    )
    assert said in verify(shards)


@pytest.mark.parametrize("change", [b"{", b"'", b"(", b"\0", b"9"])
def test_a_broken_npy_header_is_named(shards: Path, change: bytes) -> None:
    def spoil(data: bytes) -> bytes:
        return data.replace(b"}", change, 1)

    data = read_member(load_index(shards), by_key(shards, "c2"), "inertial.npy")
    replace_member(shards, "c2", "inertial.npy", lambda size: spoil(data))
    assert any("clip 'c2', inertial.npy: cannot be decoded (" in problem for problem in verify(shards))


@pytest.mark.parametrize("place", [[-1, 10], [0, -3], [10**15, 10], [0, 10**15]])
def test_a_member_outside_its_shard_is_named(shards: Path, place: list[int]) -> None:
    def move_it(content: dict[str, Any]) -> None:
        content["samples"][0]["members"]["rgb.mp4"] = place

    edit(shards, move_it)
    assert any("rgb.mp4: it is not within the shard" in problem for problem in verify(shards))


def by_key(folder: Path, key: str) -> Sample:
    return next(sample for sample in load_index(folder).samples if sample.key == key)


def replace_member(folder: Path, key: str, suffix: str, content: Callable[[int], bytes]) -> None:
    """Writes `content(size)` over a member of that size."""
    sample = by_key(folder, key)
    offset, size = sample.members[suffix]
    data = bytearray((folder / sample.shard).read_bytes())
    data[offset : offset + size] = content(size)
    (folder / sample.shard).write_bytes(data)
