"""The stream depends only on seed, step and rank; evaluation sees every clip once; damaged clips are named."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.shards import stream as stream_module
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.contact_sheet import read_member
from modalgate.shards.clips.decode import decode_sound
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream, _begin_worker

from ..open_files import open_files

CLIPS = 11
REQUEST = ClipRequest(("rgb", "audio"), 2, 0.5, 3, 16)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Eleven clips of 2 s, dark and silent except for one flash with a beep. Clip 3 has no sound."""
    folder = tmp_path_factory.mktemp("stream")
    (folder / "media" / "video").mkdir(parents=True)
    (folder / "media" / "audio").mkdir()
    for number in range(CLIPS):
        flash = 4 + 2 * number
        frames = np.full((40, 16, 16, 3), 20, np.uint8)
        frames[flash] = 235
        write_video(folder / "media" / "video" / f"c{number:02}.mkv", frames, 20.0, options={"crf": "8"})
        if number != 3:
            sound = np.random.default_rng(number).normal(0, 0.01, 32000).astype(np.float32)
            sound[flash * 800 : (flash + 1) * 800] += 0.6 * np.sin(np.arange(800) * 0.4).astype(np.float32)
            write_wave(folder / "media" / "audio" / f"c{number:02}.wav", sound, 16000)
    settings = PackSettings(modalities=("rgb", "audio"), size=16, fps=20.0, samples_per_shard=4)
    pack(folder / "media", folder / "shards", settings, workers=1)
    return load_index(folder / "shards")


def same(first: Batch, second: Batch) -> bool:
    return (
        first.key == second.key
        and first.seed == second.seed
        and torch.equal(first.start, second.start)
        and all(torch.equal(first.streams[name], second.streams[name]) for name in first.streams)
    )


def test_workers_do_not_change_the_stream(index: Index) -> None:
    alone = list(islice(ClipStream(index, REQUEST, 4, seed=5).train(), 5))
    helped = list(islice(ClipStream(index, REQUEST, 4, seed=5, workers=2).train(), 5))
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_starting_later_continues_the_same_stream(index: Index) -> None:
    whole = list(islice(ClipStream(index, REQUEST, 4, seed=1).train(), 6))
    rest = list(islice(ClipStream(index, REQUEST, 4, seed=1).train(4), 2))
    assert all(same(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_seeds_and_epochs_differ_and_an_epoch_repeats_no_clip(index: Index) -> None:
    stream = ClipStream(index, REQUEST, 4, seed=1)
    assert stream.steps_per_epoch == 2
    batches = list(islice(stream.train(), 4))
    first, second = batches[0].key + batches[1].key, batches[2].key + batches[3].key
    assert len(set(first)) == len(set(second)) == 8
    later = [batch.key for batch in islice(stream.train(2), 8)]
    assert not all(key == batches[0].key for key in later[::2])
    others = [next(ClipStream(index, REQUEST, 4, seed=seed).train()).key for seed in range(2, 8)]
    assert not all(key == batches[0].key for key in others)


def test_ranks_share_an_epoch_without_overlap(index: Index) -> None:
    ranks = [list(islice(ClipStream(index, REQUEST, 2, rank=rank, world=2).train(), 2)) for rank in range(2)]
    keys = [key for batches in ranks for batch in batches for key in batch.key]
    assert len(set(keys)) == len(keys) == 8
    assert ranks[0][0].seed != ranks[1][0].seed


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_visits_every_clip_once(index: Index, world: int) -> None:
    ranks = [list(ClipStream(index, REQUEST, 3, rank=rank, world=world).evaluate()) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    keys = [
        key
        for batches in ranks
        for batch in batches
        for key, valid in zip(batch.key, batch.valid.tolist(), strict=True)
        if valid
    ]
    assert sorted(keys) == sorted(sample.key for sample in index.samples)


def test_an_absent_stream_is_masked(index: Index) -> None:
    batch = next(ClipStream(index, REQUEST, CLIPS).evaluate())
    row = batch.key.index("c03")
    assert not batch.present["audio"][row].any()
    assert batch.present["rgb"][row].all()
    assert batch.present["audio"].sum() == 2 * (CLIPS - 1)


def test_flash_and_beep_coincide_in_a_window(index: Index) -> None:
    request = ClipRequest(("rgb", "audio"), 2, 0.9, 18, 16)
    seen = 0
    for batch in islice(ClipStream(index, request, 5, seed=3).train(), 6):
        bright = batch.streams["rgb"].float().mean(dim=(3, 4, 5))
        loud = batch.streams["audio"].unflatten(-1, (18, 800)).abs().mean(dim=-1)
        flashes = (bright.amax(-1) > 120) & batch.present["audio"] & (loud.amax(-1) > 0.2)
        seen += int(flashes.sum())
        apart = (bright.argmax(-1) - loud.argmax(-1)).abs()[flashes]
        assert (apart <= 1).all()
    assert seen > 15


def damage(index: Index, folder: Path, numbers: Sequence[int]) -> Index:
    """A copy of the shards in which the pictures of some clips are zeros."""
    assert isinstance(index.folder, Path)
    shutil.copytree(index.folder, folder)
    for number in numbers:
        sample = index.samples[number]
        offset, size = sample.members["rgb.mp4"]
        with (folder / sample.shard).open("r+b") as file:
            file.seek(offset)
            file.write(b"\0" * size)
    return load_index(folder)


def test_evaluation_names_a_damaged_member(index: Index, tmp_path: Path) -> None:
    sample = index.samples[2]
    with pytest.raises(DataError, match=f"{sample.key}.*{sample.shard}"):
        list(ClipStream(damage(index, tmp_path / "shards", [2]), REQUEST, 4).evaluate())


def test_evaluation_may_skip_damaged_clips(index: Index, tmp_path: Path) -> None:
    stream = ClipStream(damage(index, tmp_path / "shards", [2, 3]), REQUEST, 4, max_damaged=0.2)
    keys = [sample.key for sample in index.samples]
    found, whole = list(stream.evaluate(skip_damaged=True)), list(ClipStream(index, REQUEST, 4).evaluate())
    assert [len(batch) for batch in found] == [len(batch) for batch in whole]
    rows = [pair for batch in found for pair in zip(batch.key, batch.valid.tolist(), strict=True)]
    assert [key for key, valid in rows if valid] == [key for key in keys if key not in (keys[2], keys[3])]
    assert rows[2:4] == [(keys[4], False)] * 2
    assert set(stream.damaged) == {keys[2], keys[3]}


@pytest.mark.parametrize("workers", [0, 2])
def test_training_replaces_a_damaged_clip_by_the_next(index: Index, tmp_path: Path, workers: int) -> None:
    spoiled, told = damage(index, tmp_path / "shards", [2, 3]), []
    stream = ClipStream(
        spoiled, REQUEST, 4, seed=1, workers=workers, max_damaged=0.2, on_damaged=lambda *pair: told.append(pair)
    )
    keys = [sample.key for sample in index.samples]
    for whole, found in zip(islice(ClipStream(index, REQUEST, 4, seed=1).train(), 4), stream.train(), strict=False):
        expected = [keys[4] if key in (keys[2], keys[3]) else key for key in whole.key]
        assert found.key == expected
        assert found.streams["rgb"].shape == whole.streams["rgb"].shape
    assert set(stream.damaged) == {keys[2], keys[3]}
    assert sorted(told) == sorted(stream.damaged.items())
    assert all("cannot be decoded" in reason for reason in stream.damaged.values())


def test_training_ends_with_too_many_damaged_clips(index: Index, tmp_path: Path) -> None:
    stream = ClipStream(damage(index, tmp_path / "shards", [0, 5, 7]), REQUEST, 4, max_damaged=0.2)
    with pytest.raises(DataError, match=r"3 of 11 clips cannot be decoded, more than 20%: clip '.*' in shard"):
        list(islice(stream.train(), 12))


def test_training_ends_if_nothing_can_be_decoded(index: Index, tmp_path: Path) -> None:
    stream = ClipStream(damage(index, tmp_path / "shards", range(CLIPS)), REQUEST, 4, max_damaged=1.0)
    with pytest.raises(DataError, match="cannot be decoded"):
        next(stream.train())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_saved_position_resumes_within_an_epoch(index: Index, workers: int) -> None:
    stream = ClipStream(index, REQUEST, 3, seed=4, workers=workers)
    batches = stream.train()
    list(islice(batches, 4))
    saved = json.loads(json.dumps(stream.state_dict()))
    assert saved["step"] % stream.steps_per_epoch
    expected = list(islice(batches, 3))
    again = ClipStream(index, REQUEST, 3, seed=4, workers=2 - workers)
    again.load_state_dict(saved)
    assert all(same(a, b) for a, b in zip(expected, again.train(), strict=False))


@pytest.mark.parametrize("change", [{"seed": 5}, {"batch_size": 4}, {"world": 2}])
def test_a_position_in_another_stream_is_refused(index: Index, change: dict[str, int]) -> None:
    saved = ClipStream(index, REQUEST, 3, seed=4).state_dict()
    with pytest.raises(RequestError, match="position belongs to another stream"):
        ClipStream(index, REQUEST, **({"batch_size": 3, "seed": 4} | change)).load_state_dict(saved)
    with pytest.raises(RequestError, match="position belongs to another stream"):
        ClipStream(index.keep([s.key for s in index.samples[1:]]), REQUEST, 3, seed=4).load_state_dict(saved)


def test_skipping_decodes_nothing(index: Index, tmp_path: Path) -> None:
    """All clips before the position are damaged: decoding one would be noticed."""
    order = [batch.key for batch in islice(ClipStream(index, REQUEST, 4, seed=1).train(), 2)]
    numbers = [n for n, sample in enumerate(index.samples) if sample.key in order[0]]
    stream = ClipStream(damage(index, tmp_path / "shards", numbers), REQUEST, 4, seed=1)
    assert next(stream.train(1)).key == order[1]
    assert stream.damaged == {}


def test_every_order_is_equally_likely(index: Index) -> None:
    """Chi-square test of how often each clip is at each position of an epoch against the uniform distribution."""
    few = index.keep([sample.key for sample in index.samples[:6]])
    stream = ClipStream(few, REQUEST, 1, seed=9)
    counts = np.zeros((6, 6))
    for step, (_, rows) in enumerate(islice(stream._training_rows(0), 6 * 600)):
        counts[step % 6, rows[0].sample] += 1
    expected = 600 / 6
    # Rows and columns sum to 600: 25 degrees of freedom, with a 99.9th percentile of 52.6.
    assert ((counts - expected) ** 2 / expected).sum() < 52.6


def test_invalid_requests(index: Index) -> None:
    with pytest.raises(RequestError, match=r"no clip in .* has modality 'depth'"):
        ClipStream(index, ClipRequest(("depth",), 1, 0.5, 2, 16), 2)
    with pytest.raises(RequestError, match="no clips are selected"):
        ClipStream(index.keep([]), REQUEST, 2)


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_windows(index: Index) -> None:
    """A container that stays open costs some 100 kB per window: 200 MB would show."""
    script = Path(__file__).with_name("memory_worker.py")
    done = subprocess.run([sys.executable, script, str(index.folder)], capture_output=True, text=True, check=True)
    early, late = (float(line) for line in done.stdout.split())
    assert late - early < 8


def test_views_start_at_the_given_times(index: Index) -> None:
    """A window that starts later by some time shows flash and beep earlier by that time."""
    starts = {sample.key: (0.1 + 0.01 * place, 1.2) for place, sample in enumerate(index.samples)}
    alone = list(ClipStream(index, REQUEST, 4).evaluate(starts))
    helped = list(ClipStream(index, REQUEST, 4, workers=1).evaluate(starts))
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
    rate = index.settings.sample_rate
    for batch in alone:
        for row, key in enumerate(batch.key):
            assert batch.start[row].tolist() == pytest.approx(starts[key])
            sample = next(sample for sample in index.samples if sample.key == key)
            if "audio.wav" not in sample.members:
                continue
            whole = decode_sound(read_member(index, sample, "audio.wav"), np.zeros(1), sample.duration, rate)[0]
            for view, start in enumerate(starts[key]):
                first = round(start * rate)
                found = batch.streams["audio"][row, view].numpy()
                np.testing.assert_array_equal(found, whole[first : first + len(found)])


def test_a_stretched_window_plays_the_clip_at_another_speed(tmp_path: Path) -> None:
    """Clips of 1 and 2 s, each brightening from black to white, with a signal that rises from 0 to 1."""
    (tmp_path / "media" / "video").mkdir(parents=True)
    (tmp_path / "media" / "inertial").mkdir()
    for name, seconds in (("fast", 1), ("slow", 2)):
        levels = np.linspace(20, 235, 20 * seconds).astype(np.uint8)
        frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 16, 16, 3)).copy()
        write_video(tmp_path / "media" / "video" / f"{name}.mkv", frames, 20.0, options={"crf": "8"})
        ramp = np.repeat(np.linspace(0, 1, 50 * seconds, endpoint=False)[:, None], 6, axis=1)
        np.save(tmp_path / "media" / "inertial" / f"{name}.npy", ramp.astype(np.float32))
    settings = PackSettings(modalities=("rgb", "inertial"), size=16, fps=20.0, rates={"inertial": 50.0})
    packed = pack(tmp_path / "media", tmp_path / "shards", settings, workers=1)
    whole = next(ClipStream(packed, ClipRequest(("rgb", "inertial"), 1, 0.8, 4, 16, 1.0), 2).evaluate())
    brightness = whole.streams["rgb"].float().mean(dim=(1, 3, 4, 5))
    signal = whole.streams["inertial"][:, 0, :, 0]
    assert signal.shape == (2, 40)
    torch.testing.assert_close(brightness[0], brightness[1], atol=8.0, rtol=0.0)
    torch.testing.assert_close(signal[0], signal[1], atol=0.02, rtol=0.0)
    assert brightness[0, 3] - brightness[0, 0] > 120
    # At 50 Hz half a sample is left over. The result must not depend on the clip.
    odd = next(ClipStream(packed, ClipRequest(("inertial",), 1, 0.75, 4, 16, 0.9), 2).evaluate())
    assert odd.streams["inertial"].shape == (2, 1, 38, 6)
    # Stretch 0.5: the views span the clip, and each covers its own half.
    half = next(ClipStream(packed, ClipRequest(("inertial",), 2, 0.8, 4, 16, 0.5), 2).evaluate())
    torch.testing.assert_close(half.start, torch.tensor([[0.0, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(
        half.streams["inertial"][..., 0].amax(dim=-1), torch.tensor([[0.5, 1.0]] * 2), atol=0.03, rtol=0
    )
    drawn = next(ClipStream(packed, ClipRequest(("inertial",), 1, 0.8, 4, 16, 0.9), 2).train())
    assert all(
        0 <= start <= 0.1 * (1 if key == "fast" else 2) + 1e-6
        for key, start in zip(drawn.key, drawn.start[:, 0], strict=True)
    )


def test_sound_is_not_stretched() -> None:
    with pytest.raises(RequestError, match="'audio' cannot be stretched"):
        ClipRequest(("rgb", "audio"), 1, 0.5, 3, 16, 1.0)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_iterating_gives_one_epoch_after_another(index: Index, workers: int) -> None:
    stream = ClipStream(index, REQUEST, 3, seed=5, workers=workers)
    assert len(stream) == CLIPS // 3
    epochs = [*stream, *stream]
    assert len(epochs) == 2 * len(stream)
    endless = ClipStream(index, REQUEST, 3, seed=5).train(0)
    assert all(same(mine, other) for mine, other in zip(epochs, endless, strict=False))
    first = next(iter(stream))
    rest = list(stream)
    assert len(rest) == len(stream) - 1, "an epoch that was left is ended first"
    assert not set(first.key) & {key for batch in rest for key in batch.key}


def test_a_spec_is_made_of_shards_and_a_request(index: Index) -> None:
    request = ClipRequest(("audio",), 2, 0.5, 3, 16, 0.0)
    spec = ClipSpec.of(index, request)
    assert (spec.seconds, spec.frames, spec.size, spec.stretch) == (0.5, 3, 16, 0.0)
    assert (spec.short_side, spec.fps, spec.sample_rate) == (16, 20.0, index.settings.sample_rate)
    assert spec.statistics == {"audio": index.statistics["audio"]}
    assert spec.packing == index.settings


def test_random_windows_with_flow_leave_out_the_last_frame(tmp_path: Path) -> None:
    """Its flow is not a motion to a next frame, and would mark the end of the clip. Evaluation sees all of a clip."""
    (tmp_path / "media").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    for name in ("a", "b"):
        write_video(tmp_path / "media" / f"{name}.mkv", noise, 20.0, codec="ffv1", pixel_format="bgr0")
    settings = PackSettings(modalities=("rgb", "flow"), size=32, fps=20.0, samples_per_shard=4)
    index = pack(tmp_path / "media", tmp_path / "shards", settings, workers=1)
    for names, last in ((("rgb", "flow"), 0.95), (("rgb",), 1.0)):
        stream = ClipStream(index, ClipRequest(names, 1, 0.8, 16, 16), 2, seed=3)
        ends = torch.cat([batch.start.reshape(-1) for batch in islice(stream.train(), 60)]) + 0.8
        assert last - 0.02 < float(ends.max()) <= last + 1e-6
        (batch,) = ClipStream(index, ClipRequest(names, 2, 0.8, 16, 16), 2).evaluate()
        assert float(batch.start.max()) + 0.8 == pytest.approx(1.0)


@pytest.fixture(scope="module")
def everything(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Six clips with every modality, one shard each."""
    out = tmp_path_factory.mktemp("everything") / "shards"
    names = ("rgb", "flow", "depth", "depth_flow", "audio", "inertial")
    pack(folder, out, PackSettings(modalities=names, size=32, fps=10.0, samples_per_shard=1), workers=1)
    return load_index(out)


def spoil(index: Index, folder: Path, number: int, suffix: str, change: Callable[[bytes], bytes]) -> Index:
    """A copy of the shards in which one member is changed."""
    assert isinstance(index.folder, Path)
    shutil.copytree(index.folder, folder)
    sample = index.samples[number]
    offset, size = sample.members[suffix]
    path = folder / sample.shard
    data = path.read_bytes()
    changed = change(data[offset : offset + size])
    assert len(changed) == size
    path.write_bytes(data[:offset] + changed + data[offset + size :])
    return load_index(folder)


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def broken_header(data: bytes) -> bytes:
    """An NPY header that does not end its dictionary."""
    return data.replace(b"}", b"{", 1)


def without_rate(data: bytes) -> bytes:
    return data.replace(b'"rate"', b'"tare"')


DAMAGE = {
    "rgb.mp4": zeros,
    "flow.mp4": zeros,
    "depth.mkv": zeros,
    "depth_flow.mp4": zeros,
    "audio.wav": zeros,
    "inertial.npy": broken_header,
    "json": without_rate,
}


@pytest.mark.parametrize(("suffix", "workers"), [*((suffix, 0) for suffix in DAMAGE), ("audio.wav", 1)])
def test_any_damaged_member_is_replaced_in_training_and_named(
    everything: Index, tmp_path: Path, suffix: str, workers: int
) -> None:
    number = next(n for n, sample in enumerate(everything.samples) if suffix in sample.members)
    spoiled = spoil(everything, tmp_path / "shards", number, suffix, DAMAGE[suffix])
    request = ClipRequest(("rgb", "flow", "depth", "depth_flow", "audio", "inertial"), 1, 0.5, 2, 32)
    stream = ClipStream(spoiled, request, 3, workers=workers, max_damaged=0.2)
    keys = {key for batch in islice(stream.train(), 4) for key in batch.key}
    sample = everything.samples[number]
    assert set(stream.damaged) == {sample.key}
    assert sample.key not in keys
    assert sample.shard in stream.damaged[sample.key]
    with pytest.raises(DataError, match=f"clip '{sample.key}' in shard '{sample.shard}' cannot be decoded: "):
        list(ClipStream(spoiled, request, 3, workers=workers).evaluate())


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_open_files_end_training_and_damage_no_clip(
    everything: Index, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The process that reads may open fewer files than there are shards."""
    request = ClipRequest(("audio", "inertial"), 1, 0.5, 2, 32)
    stream = ClipStream(everything, request, 3, workers=workers)
    expected = [batch.key for batch in ClipStream(everything, request, 3).evaluate()]
    if workers:
        monkeypatch.setattr(stream_module, "_begin_worker", starve)
        with pytest.raises(RequestError, match="too many files are open"):
            next(stream.train())
    else:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        batches = stream.train()
        next(batches)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, limits[1]))
        try:
            assert all(len(batch) == 3 for batch in islice(batches, 4))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [batch.key for batch in ClipStream(everything, request, 3).evaluate()] == expected
    assert stream.damaged == {}


def starve(parent: Any, worker: int) -> None:
    """Begins a worker that may not open another file."""
    _begin_worker(parent, worker)
    taken = max(int(number) for number in os.listdir("/proc/self/fd")) + 1
    while True:
        try:
            os.dup(0)
        except OSError:
            return
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 8, taken + 8))


def test_evaluation_and_training_leave_no_file_open(everything: Index) -> None:
    request = ClipRequest(("audio",), 1, 0.5, 2, 32)
    folder = everything.folder
    assert isinstance(folder, Path)
    stream = ClipStream(everything, request, 2)
    for _ in range(3):
        assert len(list(stream.evaluate())) == 3
        batches = stream.train(0)
        next(batches)
        assert open_files(folder)
        batches.close()
        assert not open_files(folder)


def labelled_as(index: Index, *values: str) -> Index:
    """The index with these values in column `label`, the last one repeated."""
    texts = [*values, *[values[-1]] * len(index.samples)]
    samples = [replace(sample, labels={"label": text}) for sample, text in zip(index.samples, texts, strict=False)]
    return replace(index, samples=tuple(samples))


@pytest.mark.parametrize(
    ("values", "arguments", "said"),
    [
        (("x", "y"), {"label": "lable", "classes": ("x", "y")}, "unknown label column 'lable': did you mean 'label'"),
        (("x", "y"), {"label": "label"}, "classes of label column 'label' are missing"),
        (("x", "y"), {"label": "label", "classes": ("x", "y", "x")}, "are twice in x, y, x"),
        (("x", "yy"), {"label": "label", "classes": ("x", "y")}, "of clip '.*' 'yy': did you mean 'y'"),
        (("x", ""), {"label": "label", "classes": ("x", "y")}, "clip '.*' has no value in label column 'label'"),
        (("x|y", ""), {"label": "label", "classes": ("x", "y"), "multilabel": True}, "has no value in label column"),
        (("x|yy", "x"), {"label": "label", "classes": ("x", "y"), "multilabel": True}, "'yy': did you mean 'y'"),
    ],
)
def test_labels_that_do_not_fit_are_refused_at_once(
    index: Index, values: Sequence[str], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        ClipStream(labelled_as(index, *values), REQUEST, 2, **arguments)


def test_labels_are_numbers_or_rows_of_0_and_1(index: Index) -> None:
    single = ClipStream(labelled_as(index, "x", "y"), REQUEST, 2, label="label", classes=("y", "x"))
    assert torch.equal(next(single.evaluate()).label, torch.tensor([1, 0]))
    several = labelled_as(index, "x | y", "|", "y")
    stream = ClipStream(several, REQUEST, 3, label="label", classes=("x", "y"), multilabel=True)
    assert torch.equal(next(stream.evaluate()).label, torch.tensor([[1, 1], [0, 0], [0, 1]]))


def test_the_order_of_an_epoch_is_drawn_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ClipStream(index, REQUEST, 2, seed=3)
    expected = [rows for _, rows in islice(stream._training_rows(0), 13)]
    drawn: list[int] = []
    draw = ClipStream._epoch_order
    monkeypatch.setattr(ClipStream, "_epoch_order", lambda self, epoch: (drawn.append(epoch), draw(self, epoch))[1])
    assert [rows for _, rows in islice(stream._training_rows(0), 13)] == expected
    assert drawn == [0, 1, 2]
    assert [rows for _, rows in islice(stream._training_rows(7), 6)] == expected[7:]


@pytest.mark.slow
def test_a_worker_decodes_with_one_thread() -> None:
    code = (
        "import multiprocessing, cv2; from modalgate.shards.stream import _begin_worker;"
        "cv2.setNumThreads(4); ours, theirs = multiprocessing.Pipe(); _begin_worker(theirs, 0);"
        "print(cv2.getNumThreads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_numbers_of_a_stream_out_of_range(index: Index) -> None:
    for arguments, said in (
        ({"batch_size": 0}, "batch_size of a stream is 0: give at least 1"),
        ({"world": 0}, "world of a stream is 0"),
        ({"rank": 2, "world": 2}, "rank of a stream is 2: give 0 to 1"),
        ({"rank": -1}, "rank of a stream is -1"),
        ({"workers": -1}, "workers of a stream is -1"),
        ({"max_damaged": 1.5}, "max_damaged of a stream is 1.5"),
    ):
        with pytest.raises(RequestError, match=said):
            ClipStream(index, REQUEST, **({"batch_size": 2} | arguments))


def test_numbers_of_a_request_out_of_range() -> None:
    for change in (
        {"segments": 0},
        {"frames": 0},
        {"size": -3},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"stretch": 1.5},
    ):
        (name,) = change
        with pytest.raises(RequestError, match=f"{name} of a request is"):
            replace(ClipRequest(("rgb",), 1, 0.5, 3, 16), **change)
        with pytest.raises(RequestError, match="no modality to read"):
            ClipRequest((), 1, 0.5, 3, 16)


def test_a_selection_may_lack_a_modality_of_the_shards(index: Index) -> None:
    """As the test clips of a fold may: it is absent in every batch."""
    silent = index.keep(["c03"])
    assert (index.modalities, silent.modalities, silent.packed) == (("rgb", "audio"), ("rgb",), ("rgb", "audio"))
    batch = next(ClipStream(silent, REQUEST, 1).evaluate())
    assert not batch.present["audio"].any()
    assert "audio" not in batch.streams
