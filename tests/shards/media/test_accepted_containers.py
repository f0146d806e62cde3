"""Container formats that are accepted from untrusted senders, and playlists, which are not."""

from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.media.container_io import check_container, probe, write_video, write_wave

PICTURES = np.zeros((10, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "ts"])
def test_the_duration_does_not_depend_on_the_name(suffix: str, tmp_path: Path) -> None:
    write_video(tmp_path / f"film.{suffix}", PICTURES, 10)
    plain = (tmp_path / f"film.{suffix}").rename(tmp_path / "video")
    assert check_container(plain) == pytest.approx(1, abs=0.11)


def test_a_sound_file_is_accepted(tmp_path: Path) -> None:
    write_wave(tmp_path / "audio", np.zeros(8000, np.float32), 16000)
    assert check_container(tmp_path / "audio") == pytest.approx(0.5)


def test_files_that_name_other_files_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", PICTURES, 10)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist, encoding="utf-8")
    (tmp_path / "video").write_text("ffconcat version 1.0\nfile secret.ts\n", encoding="utf-8")
    for name in ("list.m3u8", "video"):
        with pytest.raises(ValueError, match="format is not accepted"):
            check_container(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"this is no film\n" * 50, "it holds no media"),
        (b"\0\0\0\x18ftypmp42" + bytes(600), "index at the end of the MP4"),
    ],
)
def test_a_file_without_media_is_reported(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "video").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        check_container(tmp_path / "video")


@pytest.mark.parametrize("count", [10, 60_000_000, 2**29, 2**32 - 1])
def test_a_table_that_is_longer_than_the_file_is_refused(count: int, tmp_path: Path) -> None:
    """FFmpeg takes 1.4 GB for sixty million samples."""
    write_video(tmp_path / "film.mp4", PICTURES, 10)
    content = (tmp_path / "film.mp4").read_bytes()
    place = content.index(b"stsz") - 4
    # All samples have one byte.
    table = content[place + 4 : place + 12] + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    length = int.from_bytes(content[place : place + 4], "big")
    rest = content[place + 20 : place + length]
    changed = (20).to_bytes(4, "big") + table + (len(rest)).to_bytes(4, "big") + b"free" + rest[8:]
    (tmp_path / "film.mp4").write_bytes(content[:place] + changed + content[place + length :])
    if count == 10:
        assert probe(tmp_path / "film.mp4").has_video
    else:
        with pytest.raises(ValueError, match=f"announces {count} samples"):
            probe(tmp_path / "film.mp4")


def test_a_fragment_that_is_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    run = (16).to_bytes(4, "big") + b"trun" + bytes(4) + (10**9).to_bytes(4, "big")
    fragment = (8 + len(run)).to_bytes(4, "big") + b"moof" + run
    write_video(tmp_path / "film.mp4", PICTURES, 10)
    with (tmp_path / "film.mp4").open("ab") as file:
        file.write(fragment)
    with pytest.raises(ValueError, match="announces 1000000000 samples"):
        probe(tmp_path / "film.mp4")
