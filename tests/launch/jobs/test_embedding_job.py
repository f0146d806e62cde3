"""Features of folders, lists and shards equal the model, in both file formats, also after `kill -9`."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from modalgate.fusion import load_encoder
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.fusion.bundle.embedder import Embedding
from modalgate.launch.cli import main
from modalgate.launch.jobs.embedding_job import Embedded, embed, rejected_list
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import load_index
from modalgate.shards.media.container_io import write_video
from modalgate.tasks.features.feature_parts import parts_folder

SCRIPT = Path(__file__).with_name("killed_embed.py")
WINDOWS = {"a.mkv": 9, "deep/b.mkv": 4, "silent.mkv": 6}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films, one of them silent and one in a subfolder, and a file that is not a film."""
    folder = tmp_path_factory.mktemp("media")
    generator = np.random.default_rng(0)
    (folder / "deep").mkdir()
    for name, frames in (("a.mkv", 20), ("deep/b.mkv", 10), ("silent.mkv", 14)):
        pictures = generator.integers(0, 255, (frames, 32, 32, 3)).astype(np.uint8)
        sound = (generator.standard_normal(frames * 800) * 0.1).astype(np.float32)
        with_sound = {} if name == "silent.mkv" else {"sound": sound, "sample_rate": 8000}
        write_video(folder / name, pictures, 10, **with_sound)  # pyright: ignore
    (folder / "torn.mp4").write_bytes(b"no film at all" * 40)
    return folder


@pytest.fixture(scope="module")
def bundle(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "bundle"
    save_bundle(Bundle(tiny_backbone(("rgb", "audio"), fusion="softmax").eval(), tiny_clip, 2), folder)
    return folder


@pytest.fixture
def run(bundle: Path, media: Path) -> Callable[..., Embedded]:
    """`run(out, source=the folder, **options)`, decoding in this process."""

    def call(out: Path, source: Path = media, **options: Any) -> Embedded:
        return embed(bundle, str(source), out, **{"workers": 0, "max_rejected": 0.5, "by_modality": True} | options)

    return call


def rows(path: Path) -> dict[str, np.ndarray]:
    """Either form as arrays by one set of names; what is null is not a number."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays["modalities"].tolist()
            found = {key: arrays[key] for key in arrays.files if key not in ("modalities", "modalgate")}
        for number, name in enumerate(names):
            found[f"weight.{name}"] = found["weights"][:, number]
            found[f"present.{name}"] = found["present"][:, number]
            found[f"features.{name}"][~found[f"present.{name}"]] = np.nan
        del found["weights"], found["present"]
        return found
    table = pq.read_table(path)
    found = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if name.startswith("features"):
            values = [[np.nan] * 8 if value is None else value for value in values]
        found[name] = np.array(values)
    return found


def of(found: dict[str, np.ndarray], key: str, name: str) -> np.ndarray:
    return found[name][found["key"] == key]


def check(found: dict[str, np.ndarray], key: str, expected: Embedding) -> None:
    assert (of(found, key, "features") == expected.features).all()
    assert (of(found, key, "start") == expected.start).all()
    assert (of(found, key, "end") == expected.end).all()
    for number, name in enumerate(expected.modalities):
        present = expected.present[:, number]
        assert (of(found, key, f"present.{name}") == present).all()
        assert (of(found, key, f"weight.{name}") == expected.weights[:, number]).all()
        alone = of(found, key, f"features.{name}")
        assert np.isnan(alone[~present]).all()
        assert (alone[present] == expected.by_modality[name][present]).all()


@pytest.mark.parametrize("form", [".parquet", ".npz"])
def test_folder_embedding_equals_the_encoder_on_every_file(
    form: str, run: Callable[..., Embedded], bundle: Path, media: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"features{form}"
    embedded = run(out)
    assert (embedded.recordings, embedded.windows, embedded.rejected, embedded.width) == (3, 19, 1, 8)
    found, encoder = rows(out), load_encoder(bundle)
    assert {key: int((found["key"] == key).sum()) for key in found["key"]} == WINDOWS
    for key in WINDOWS:
        check(found, key, encoder.embed(media / key))
    assert embedded.present == {"rgb": 1.0, "audio": pytest.approx(13 / 19)}
    assert embedded.weights["audio"] == pytest.approx(float(found["weight.audio"].mean()))
    (line,) = rejected_list(out).read_text().splitlines()
    assert json.loads(line)["file"].endswith("torn.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {out.name, f"{out.name}.rejected.jsonl"}


def test_both_file_formats_hold_the_same_features(run: Callable[..., Embedded], tmp_path: Path) -> None:
    for form in (".parquet", ".npz"):
        run(tmp_path / f"features{form}")
    first, second = (rows(tmp_path / f"features{form}") for form in (".parquet", ".npz"))
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_modality_features_can_be_omitted(run: Callable[..., Embedded], tmp_path: Path) -> None:
    run(tmp_path / "features.parquet", by_modality=False)
    columns = ["key", "start", "end", "features", "weight.rgb", "weight.audio", "present.rgb", "present.audio"]
    assert pq.read_schema(tmp_path / "features.parquet").names == columns


@pytest.fixture(scope="module")
def killed(bundle: Path, media: Path) -> Iterator[Callable[[Path, int], int]]:
    """`killed(out, n)`: embeds until the n-th rename, and returns the signal that ended it."""
    command = [sys.executable, SCRIPT, bundle, media]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def call(out: Path, last: int) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            print(last, out, file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield call
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("form", [".parquet", ".npz"])
def test_killed_embedding_resumes_to_the_same_bytes(
    form: str, run: Callable[..., Embedded], killed: Callable[[Path, int], int], tmp_path: Path
) -> None:
    whole = tmp_path / f"whole{form}"
    expected = run(whole)
    # The request, three recordings, the list of the torn one, the file itself.
    for last in range(1, 7):
        out = tmp_path / str(last) / f"cut{form}"
        assert killed(out, last) == signal.SIGKILL
        assert not out.exists()
        assert len(list(parts_folder(out).glob("*.safetensors"))) == min(max(last - 2, 0), 3)
        assert vars(run(out)) == vars(expected) | {"out": out}
        assert out.read_bytes() == whole.read_bytes()
        assert {path.name for path in out.parent.iterdir()} == {out.name, f"{out.name}.rejected.jsonl"}
    assert killed(tmp_path / f"uncut{form}", 7) == 0
    assert (tmp_path / f"uncut{form}").read_bytes() == whole.read_bytes()


def test_finished_recordings_are_skipped_unless_changed(
    run: Callable[..., Embedded], killed: Callable[[Path, int], int], media: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "media", tmp_path / "features.npz"
    shutil.copytree(media, mine)
    # The interrupted run read the original folder; the copies differ in their times of writing alone.
    assert killed(out, 5) == signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in parts_folder(out).glob("*.safetensors")}
    assert len(before) == 3
    with pytest.raises(RequestError, match=r"interrupted run with hop 0.2, not 0.4"):
        run(out, hop=0.4)
    later = (mine / "a.mkv").stat().st_mtime_ns + 10**9
    os.utime(mine / "a.mkv", ns=(later, later))
    run(out, mine)
    assert not parts_folder(out).exists()
    assert rows(out)["key"].tolist().count("a.mkv") == 9


def test_decoding_processes_do_not_change_the_output(run: Callable[..., Embedded], tmp_path: Path) -> None:
    for workers in (0, 2):
        run(tmp_path / f"{workers}.parquet", workers=workers)
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_list_paths_are_relative_to_the_list(
    run: Callable[..., Embedded], bundle: Path, media: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"# two of them, one twice, one gone\n{media / 'a.mkv'}\n{media / 'a.mkv'}\n\ngone.mp4\nb.mkv\n"
    )
    shutil.copy(media / "deep" / "b.mkv", tmp_path)
    out = tmp_path / "features.npz"
    embedded = run(out, listed)
    assert (embedded.recordings, embedded.rejected) == (2, 2)
    check(rows(out), "b.mkv", load_encoder(bundle).embed(media / "deep" / "b.mkv"))
    reasons = [json.loads(line)["reason"] for line in rejected_list(out).read_text().splitlines()]
    assert sorted(reason.split("'")[0] for reason in reasons) == ["it does not exist", "it is in "]


def test_shards_are_embedded_by_clip_key(
    tiny_backbone: Callable[..., Backbone], packed: Path, tmp_path: Path
) -> None:
    index = load_index(packed)
    settings = index.settings
    spec = ClipSpec(
        0.4, 2, 32, settings.size, settings.fps, settings.sample_rate, settings.flow_bound, dict(index.statistics)
    )
    save_bundle(Bundle(tiny_backbone(("rgb", "audio")).eval(), spec, 2), tmp_path / "bundle")
    out = tmp_path / "features.parquet"
    embedded = embed(tmp_path / "bundle", str(packed), out, workers=0)
    found = rows(out)
    assert embedded.recordings == len(index.samples) == len(set(found["key"].tolist()))
    assert set(found["key"].tolist()) == {sample.key for sample in index.samples}
    for sample in index.samples:
        assert of(found, sample.key, "end").max() <= sample.duration + 1e-6
    assert np.isfinite(np.stack(found["features"])).all()


def test_second_call_does_nothing_and_other_request_is_rejected(run: Callable[..., Embedded], tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    first = run(out)
    written = out.stat().st_mtime_ns
    assert run(out) == first
    assert out.stat().st_mtime_ns == written
    with pytest.raises(RequestError, match=r"already holds features with hop 0.2, not 0.3: remove it"):
        run(out, hop=0.3)
    other = tmp_path / "thesis.npz"
    other.write_text("years of work")
    with pytest.raises(RequestError, match=r"thesis.npz' exists and holds no features: .* or add --overwrite"):
        run(other)
    assert other.read_text() == "years of work"
    assert run(out, hop=0.3, overwrite=True).windows != first.windows
    assert run(other, overwrite=True).windows == first.windows


def test_too_many_unreadable_recordings_stop_and_are_listed(
    bundle: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", str(bundle), str(media), str(tmp_path / "features.npz"), "--workers", "0"]
    assert main(command) == 3
    printed = capsys.readouterr()
    assert "1 recording rejected" in printed.out
    assert "torn.mp4" in printed.out
    assert "1 of 4 recordings cannot be embedded" in printed.err
    assert not (tmp_path / "features.npz").exists()
    assert main([*command, "--max-rejected", "0.3", "--json", str(tmp_path / "figures.json")]) == 0
    assert "19 pieces of 3 recordings, 8 features each" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["rejected"] == 1


def test_a_recording_beyond_the_longest_is_rejected_by_name(
    bundle: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.npz"
    command = ["embed", str(bundle), str(media), str(out), "--workers", "0", "--max-rejected", "1"]
    main([*command, "--max-seconds", "1.5"])
    rejected = [json.loads(line) for line in rejected_list(out).read_text().splitlines()]
    assert [line["file"] for line in rejected if "more than 1.5 (--max-seconds)" in line["reason"]], rejected


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("features.csv", "", "a name that ends in .parquet or .npz"),
        ("features.npz", "nowhere", "nothing at"),
        ("features.npz", "list.txt", "names no file"),
    ],
)
def test_invalid_request_is_rejected_before_writing(
    name: str, source: str, says: str, run: Callable[..., Embedded], media: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(RequestError, match=says):
        run(tmp_path / name, tmp_path / source if source else media)
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


def test_missing_pyarrow_names_the_extra_to_install(
    run: Callable[..., Embedded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(RequestError, match=r"needs pyarrow: pip install 'modalgate\[embed\]', or .*\.npz"):
        run(tmp_path / "features.parquet")
    run(tmp_path / "features.npz")


def test_no_readable_recording_is_bad_data(run: Callable[..., Embedded], tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "torn.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match="1 of 1 recordings cannot be embedded"):
        run(tmp_path / "features.npz", folder, max_rejected=1.0)
