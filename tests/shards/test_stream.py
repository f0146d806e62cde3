"""The stream is a function of seed, step and rank; evaluation sees every clip once; damage is named."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.shards.batch import Batch
from modalgate.shards.errors import DataError, RequestError
from modalgate.shards.index import Index, PackSettings, load_index
from modalgate.shards.media import write_video, write_wave
from modalgate.shards.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream

CLIPS = 11
REQUEST = ClipRequest(("rgb", "audio"), 2, 0.5, 3, 16)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Eleven clips of 2 s; in each the picture and the sound are silent-dark but for one flash with its beep.

    Clip 3 has no sound.
    """
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
    assert first != second
    assert next(ClipStream(index, REQUEST, 4, seed=2).train()).key != batches[0].key


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


def test_an_absent_stream_is_masked_not_invented(index: Index) -> None:
    batch = next(ClipStream(index, REQUEST, CLIPS).evaluate())
    row = batch.key.index("c03")
    assert not batch.present["audio"][row].any()
    assert batch.present["rgb"][row].all()
    assert batch.present["audio"].sum() == 2 * (CLIPS - 1)


def test_flash_and_beep_fall_into_the_same_place_of_a_window(index: Index) -> None:
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


def test_a_damaged_member_is_named(index: Index, tmp_path: Path) -> None:
    sample = next(sample for sample in index.samples if "audio.wav" in sample.members)
    for shard in index.shards:
        (tmp_path / shard.name).write_bytes((index.folder / shard.name).read_bytes())
    (tmp_path / "index.json").write_bytes((index.folder / "index.json").read_bytes())
    offset, size = sample.members["rgb.mp4"]
    with (tmp_path / sample.shard).open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    with pytest.raises(DataError, match=f"{sample.key}.*{sample.shard}"):
        list(ClipStream(load_index(tmp_path), REQUEST, 4).evaluate())


def test_requests_that_cannot_be_met(index: Index) -> None:
    with pytest.raises(RequestError, match=r"no clip in .* has modality 'depth'"):
        ClipStream(index, ClipRequest(("depth",), 1, 0.5, 2, 16), 2)
    with pytest.raises(RequestError, match="no clips are selected"):
        ClipStream(index.keep([]), REQUEST, 2)
