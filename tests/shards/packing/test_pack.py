"""From media files to shards: what is stored, where the index places it, and the handling of bad input."""

import importlib.util
import io
import json
import os
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import webdataset
from modalgate.shards.clips.decode import decode_frames, decode_sound
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import Index, Sample, load_index
from modalgate.shards.index.unreadable import UNREADABLE
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.flow import compute_flow, dequantise_flow
from modalgate.shards.modality import modality
from modalgate.shards.packing.encode import encode_source
from modalgate.shards.packing.engine import ENGINES, run_local
from modalgate.shards.packing.pack import REJECTED_NAME, pack
from modalgate.shards.packing.rejected import read_rejected
from modalgate.shards.packing.sources import Source

ALL = ("rgb", "flow", "depth", "depth_flow", "audio", "inertial")
USUAL = tuple(name for name in ALL if name != "depth_flow")


@pytest.fixture(scope="module")
def packed(folder: Path, small: Callable, tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(folder, out, small(modalities=ALL), workers=1)
    return load_index(out)


def member(index: Index, sample: Sample, suffix: str) -> bytes:
    offset, size = sample.members[suffix]
    return (index.folder / sample.shard).read_bytes()[offset : offset + size]


def test_index(packed: Index) -> None:
    assert sorted(sample.key for sample in packed.samples) == [f"c{number}" for number in range(6)]
    assert [shard.samples for shard in packed.shards] == [4, 2]
    totals = {name: sum(shard.present[name] for shard in packed.shards) for name in ALL}
    assert totals == {"rgb": 6, "flow": 6, "depth": 6, "depth_flow": 6, "audio": 3, "inertial": 6}
    assert packed.columns == ("label", "group")
    assert {sample.key: sample.labels["group"] for sample in packed.samples}["c5"] == "g2"
    assert all(sample.duration == 1.0 for sample in packed.samples)
    assert set(os.listdir(packed.folder)) == {"index.json", "shard-000000.tar", "shard-000001.tar"}


def test_offsets_point_at_the_members(packed: Index) -> None:
    for shard in packed.shards:
        with tarfile.open(packed.folder / shard.name) as tar:
            whole = {entry.name: tar.extractfile(entry).read() for entry in tar}
        listed = {
            f"{sample.key}.{suffix}": member(packed, sample, suffix)
            for sample in packed.samples
            if sample.shard == shard.name
            for suffix in sample.members
        }
        assert listed == whole


def test_webdataset_reads_them(packed: Index) -> None:
    paths = [str(packed.folder / shard.name) for shard in packed.shards]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [sample.key for sample in packed.samples]
    for sample, listed in zip(samples, packed.samples, strict=True):
        assert {name for name in sample if not name.startswith("__")} == set(listed.members)


def test_depth_is_exact(packed: Index, folder: Path) -> None:
    for sample in packed.samples:
        times = np.arange(10) / 10 + 0.05
        data = member(packed, sample, "depth.mkv")
        read = decode_frames(data, times, 10.0, modality("depth"), 32, (0.0, 0.0))
        truth = np.load(folder / "depth" / f"{sample.key}.truth.npy")
        np.testing.assert_array_equal(read[:, 0], truth[:, :, :32])


def test_flow_of_depth_is_computed_from_the_stored_depth(packed: Index) -> None:
    times = np.arange(10) / 10 + 0.05
    bound = packed.settings.flow_bound
    for sample in packed.samples[:2]:
        depth, stored = (
            decode_frames(member(packed, sample, modality(name).suffix), times, 10.0, modality(name), 32, (0.5, 0.5))
            for name in ("depth", "depth_flow")
        )
        facts = json.loads(member(packed, sample, "json"))["modalities"]["depth_flow"]
        assert (facts["bound"], facts["length"], facts["unit"]) == (bound, 10, "pixel/frame")
        assert stored.shape == (10, 2, 32, 32)
        # The search also saw the sides, which the square lacks: only its middle is compared.
        computed = np.clip(compute_flow(depth[:, 0]), -bound, bound)[:, :, 8:24, 8:24]
        read = dequantise_flow(stored, bound)[:, :, 8:24, 8:24]
        assert np.median(np.abs(read - computed)) < 0.75


def test_flow_of_depth_is_packed_on_request(folder: Path, tmp_path: Path, small: Callable) -> None:
    for name in ("depth", "inertial"):
        (tmp_path / "in" / name).mkdir(parents=True)
    for number in range(2):
        shutil.copy(folder / "depth" / f"c{number}.mkv", tmp_path / "in" / "depth")
        shutil.copy(folder / "inertial" / f"c{number}.csv", tmp_path / "in" / "inertial")
    usual = pack(tmp_path / "in", tmp_path / "usual", small(modalities=()), workers=1)
    assert usual.settings.modalities == ("depth", "inertial")
    asked = pack(tmp_path / "in", tmp_path / "asked", small(modalities=("depth_flow", "inertial")), workers=1)
    assert asked.modalities == ("depth_flow", "inertial")
    assert {suffix for sample in asked.samples for suffix in sample.members} == {
        "depth_flow.mp4",
        "inertial.npy",
        "json",
    }


def test_silent_track_is_absent(packed: Index) -> None:
    sounding = {sample.key for sample in packed.samples if "audio.wav" in sample.members}
    assert sounding == {"c0", "c2", "c4"}
    (tone,) = [sample for sample in packed.samples if sample.key == "c0"]
    sound = decode_sound(member(packed, tone, "audio.wav"), np.zeros(1), 1.0, 16000)[0]
    spectrum = np.abs(np.fft.rfft(sound))
    assert spectrum.argmax() == 1000


def test_statistics(packed: Index) -> None:
    signals = np.concatenate([np.load(io.BytesIO(member(packed, s, "inertial.npy"))) for s in packed.samples])
    np.testing.assert_allclose(packed.statistics["inertial"].mean, signals.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(packed.statistics["inertial"].std, signals.std(axis=0), rtol=1e-5)
    assert [len(packed.statistics[name].mean) for name in ALL] == [3, 2, 1, 2, 1, 6]


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(packed: Index, folder: Path, small: Callable, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    pack(folder, tmp_path / "two", small(modalities=ALL), workers=2, progress=lambda *counts: told.append(counts))
    for name in os.listdir(packed.folder):
        assert (tmp_path / "two" / name).read_bytes() == (packed.folder / name).read_bytes()
    assert told == [(number, 6, 0) for number in range(7)]


def test_seed_orders_all_clips(packed: Index, folder: Path, small: Callable, tmp_path: Path) -> None:
    orders = set()
    for seed in range(4):
        index = pack(folder, tmp_path / str(seed), small(modalities=("inertial",), seed=seed), workers=1)
        orders.add(tuple(sample.key for sample in index.samples))
    assert len(orders) == 4


def test_long_recordings_are_cut_into_pieces_of_one_group(tmp_path: Path, film: Callable, small: Callable) -> None:
    film(tmp_path / "in" / "long.mp4", 2.5)
    film(tmp_path / "in" / "short.mp4", 0.8)
    index = pack(tmp_path / "in", tmp_path / "out", small(modalities=("rgb",), clip_seconds=1.0), workers=1)
    groups = {sample.key: sample.labels["group"] for sample in index.samples}
    assert groups == {"long-000": "long", "long-001": "long", "long-002": "long", "short": "short"}
    assert {sample.key: sample.duration for sample in index.samples}["long-002"] == 0.5
    start = {sample.key: json.loads(member(index, sample, "json"))["start"] for sample in index.samples}
    assert start == {"long-000": 0.0, "long-001": 1.0, "long-002": 2.0, "short": 0.0}


def test_without_labels_or_cuts_there_is_no_group_column(tmp_path: Path, film: Callable, small: Callable) -> None:
    film(tmp_path / "in" / "a.mp4")
    assert pack(tmp_path / "in", tmp_path / "out", small(modalities=("rgb",)), workers=1).columns == ()


def test_pieces_are_read_one_by_one(
    tmp_path: Path, film: Callable, small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most two pieces of a long recording are decoded before the first is encoded."""
    film(tmp_path / "a.mp4", 6.0)
    module = sys.modules["modalgate.shards.packing.encode"]

    events: list[str] = []
    read, encode = module.read_recording, module.encode_clip

    def reading(*arguments: object) -> object:
        for piece in read(*arguments):
            events.append("read")
            yield piece

    def encoding(*arguments: object) -> object:
        events.append("encoded")
        return encode(*arguments)

    monkeypatch.setattr(module, "read_recording", reading)
    monkeypatch.setattr(module, "encode_clip", encoding)
    source = Source("a", {"video": tmp_path / "a.mp4"})
    assert len(list(encode_source(source, small(modalities=("rgb",), clip_seconds=1.0)))) == 6
    ahead = np.cumsum([1 if event == "read" else -1 for event in events])
    assert ahead.max() <= 2


@pytest.fixture
def damaged(tmp_path: Path, film: Callable) -> Path:
    """Three good videos, and one of each kind of bad file."""
    root = tmp_path / "in"
    for number in range(3):
        film(root / f"good{number}.mp4", seed=number)
    whole = (root / "good0.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "empty.mp4").touch()
    (root / "text.mkv").write_text("not a film")
    film(root / "single.mp4", 0.1)
    (root / "soundless.mp3").write_bytes(b"\0" * 4000)
    return root


def test_bad_files_are_listed(damaged: Path, tmp_path: Path, small: Callable) -> None:
    told: list[tuple[int, int, int]] = []
    index = pack(
        damaged,
        tmp_path / "out",
        small(),
        workers=1,
        max_rejected=0.9,
        progress=lambda *counts: told.append(counts),
    )
    assert sorted(sample.key for sample in index.samples) == ["good0", "good1", "good2"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    reasons = {Path(line["file"]).name: line["reason"] for line in lines}
    assert set(reasons) == {"cut.mp4", "empty.mp4", "text.mkv", "single.mp4", "soundless.mp3"}
    assert "has 1 frame" in reasons["single.mp4"]
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert told[-1] == (8, 8, 5)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "npy", "csv"])
def test_every_damage_gives_clips_or_an_expected_error(
    tmp_path: Path, film: Callable, beep: Callable, small: Callable, suffix: str
) -> None:
    """Overwrites bytes anywhere, mostly in the headers, and sometimes truncates the file."""
    path = tmp_path / f"a.{suffix}"
    name, generator = "video", np.random.default_rng(0)
    if suffix in ("npy", "csv"):
        name, table = "inertial", generator.normal(size=(100, 6))
        np.save(path, table) if suffix == "npy" else np.savetxt(path, table, delimiter=",")
    else:
        film(path, 1.0, beep(1.0))
    settings = small(modalities=("inertial",) if name == "inertial" else ("rgb", "audio"))
    whole, outcomes = path.read_bytes(), Counter[str]()
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(generator.integers(1, 12)):
            data[generator.integers(min(600, len(data)) if generator.random() < 0.5 else len(data))] ^= 0x5A
        path.write_bytes(data[: generator.integers(len(data) // 2, 2 * len(data))])
        try:
            outcomes["packed"] += len(list(encode_source(Source("a", {name: path}), settings))) > 0
        except UNREADABLE:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 2


def test_tags_in_another_encoding(tmp_path: Path, film: Callable, small: Callable) -> None:
    """An old camera's comment in Latin-1 must not make its video unreadable."""
    path = film(tmp_path / "in" / "a.mkv")
    with av.open(str(path)) as source, av.open(str(tmp_path / "in" / "b.mkv"), "w") as target:
        target.metadata["comment"] = "Kaefer"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "in" / "b.mkv").read_bytes()
    assert b"Kaefer" in data
    (tmp_path / "in" / "b.mkv").write_bytes(data.replace(b"Kaefer", b"K\xe4fer "))
    assert len(pack(tmp_path / "in", tmp_path / "out", small(modalities=("rgb",)), workers=1).samples) == 2


def test_too_many_bad_files_fail_unless_allowed(damaged: Path, tmp_path: Path, small: Callable) -> None:
    """The second run, which allows them, reuses the encoded good ones."""
    with pytest.raises(DataError, match=r"5 of 8 recordings cannot be packed, the first '.*': .*--max-rejected"):
        pack(damaged, tmp_path / "out", small(), workers=1)
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 5
    with pytest.raises(RequestError, match="its packing is not finished"):
        load_index(tmp_path / "out")
    told: list[tuple[int, int, int]] = []
    pack(damaged, tmp_path / "out", small(), None, 1, 0.9, lambda *counts: told.append(counts))
    assert told[0] == (3, 8, 0)
    assert set(os.listdir(tmp_path / "out")) == {"index.json", "shard-000000.tar", "rejected.jsonl"}


def test_a_recording_that_kills_its_process(
    folder: Path, tmp_path: Path, small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(work: Callable, items: list[Source], workers: int | None) -> Iterator[tuple[int, str | None]]:
        for number, result in run_local(work, items, workers):
            yield number, None if items[number].key == "c4" else result

    monkeypatch.setitem(ENGINES, "local", run)
    index = pack(folder, tmp_path / "out", small(modalities=("inertial",)), workers=1, max_rejected=0.5)
    assert len(index.samples) == 5
    (line,) = read_rejected(tmp_path / "out" / REJECTED_NAME)
    assert Path(line.file).stem == "c4"
    assert "process that read it died" in line.reason


def test_packing_again_changes_nothing(packed: Index, folder: Path, small: Callable, tmp_path: Path) -> None:
    """The same command on a finished folder succeeds. Another one fails and names the difference."""
    shutil.copytree(packed.folder, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in os.listdir(tmp_path / "out")}
    assert pack(folder, tmp_path / "out", small(modalities=ALL)).samples == packed.samples
    with pytest.raises(RequestError, match=r"already holds shards with size 32, not 48, fps 10.0, not 5.0: give an"):
        pack(folder, tmp_path / "out", small(modalities=ALL, size=48, fps=5.0))
    copied = shutil.copytree(folder, tmp_path / "in")
    labels = (copied / "labels.csv").read_text()
    (copied / "labels.csv").write_text(labels.replace("calm", "quiet"))
    with pytest.raises(RequestError, match="already holds shards with other recordings, labels or rates"):
        pack(copied, tmp_path / "out", small(modalities=ALL))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in os.listdir(tmp_path / "out")} == before


def test_all_available_modalities_by_default(folder: Path, tmp_path: Path, small: Callable, film: Callable) -> None:
    assert pack(folder, tmp_path / "out", small(modalities=()), workers=1).settings.modalities == USUAL
    film(tmp_path / "in" / "a.mp4")
    assert pack(tmp_path / "in", tmp_path / "a", small(modalities=()), workers=1).modalities == ("rgb", "flow")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [ray] is not installed")
def test_ray_packs_the_same_bytes(
    packed: Index, folder: Path, damaged: Path, small: Callable, tmp_path: Path
) -> None:
    """On a Ray cluster of two nodes on this machine. The same files are rejected for the same reasons."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    import ray

    try:
        ray.init(address=cluster.address, log_to_driver=False)
        told: list[tuple[int, int, int]] = []
        pack(folder, tmp_path / "ray", small(modalities=ALL), engine="ray", progress=lambda *n: told.append(n))
        for engine in ("local", "ray"):
            pack(damaged, tmp_path / f"damaged-{engine}", small(), max_rejected=0.9, engine=engine)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert told == [(number, 6, 0) for number in range(7)]
    for one, other in ((packed.folder, tmp_path / "ray"), (tmp_path / "damaged-local", tmp_path / "damaged-ray")):
        assert set(os.listdir(one)) == set(os.listdir(other))
        for name in os.listdir(one):
            assert (one / name).read_bytes() == (other / name).read_bytes()


def test_known_translation_is_in_the_shards(tmp_path: Path, drifting: Callable, small: Callable) -> None:
    """Flow read back from the shard of a texture that moves by (2, -1) pixel/frame."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mkv", drifting(12, 64, 96, 2, -1), 10, options={"crf": "4"})
    index = pack(tmp_path / "in", tmp_path / "out", small(modalities=("flow",), size=64), workers=1)
    (sample,) = index.samples
    data = member(index, sample, "flow.mp4")
    stored = decode_frames(data, np.arange(12) / 10 + 0.05, 10.0, modality("flow"), 64, (0.5, 0.5))
    flow = dequantise_flow(stored, index.settings.flow_bound)[:, :, 12:-12, 12:-12]
    np.testing.assert_allclose(np.median(flow, axis=(0, 2, 3)), (2, -1), atol=0.1)
    error = np.linalg.norm(flow - np.array([2, -1])[:, None, None], axis=1)
    assert np.median(error) <= 0.25


def test_stored_flow_is_the_computed_flow(tmp_path: Path, drifting: Callable, small: Callable) -> None:
    """End-point error of the stored flow against the computed one, at the default size and bound."""
    frames = np.concatenate([drifting(6, 112, 150, dx, dy) for dx, dy in ((3, 1), (-4, 2), (0, 0))])
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mkv", frames, 10, codec="ffv1", pixel_format="bgr0")
    index = pack(tmp_path / "in", tmp_path / "out", small(modalities=("flow",), size=112), workers=1)
    data = member(index, index.samples[0], "flow.mp4")
    stored = decode_frames(data, np.arange(18) / 10 + 0.05, 10.0, modality("flow"), 112, (0.0, 0.0))
    bound = index.settings.flow_bound
    computed = np.clip(compute_flow(frames)[..., :112], -bound, bound)
    error = np.linalg.norm(dequantise_flow(stored, bound) - computed, axis=1)
    assert np.median(error) <= 0.25


def test_bad_requests(folder: Path, tmp_path: Path, small: Callable, film: Callable) -> None:
    with pytest.raises(RequestError, match="unknown modality 'audo': did you mean 'audio'"):
        pack(folder, tmp_path / "out", small(modalities=("audo",)))
    film(tmp_path / "in" / "a.mp4")
    with pytest.raises(RequestError, match=r"no recording has modality 'depth' \(they can have: audio, flow, rgb\)"):
        pack(tmp_path / "in", tmp_path / "out", small(modalities=("rgb", "depth")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="unknown engine 'rey': did you mean 'ray'"):
        pack(folder, tmp_path / "out", small(), engine="rey")
    with pytest.raises(RequestError, match=r"full' already holds something"):
        pack(folder, tmp_path / "full", small())
    with pytest.raises(RequestError, match="already holds something"):
        pack(folder, tmp_path / "full" / "mine.txt", small())
    assert sorted(os.listdir(tmp_path)) == ["full", "in"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(
    folder: Path, tmp_path: Path, small: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    pack(folder, Path("."), small(modalities=("inertial",)), workers=1)
    assert load_index(tmp_path / "out").samples
