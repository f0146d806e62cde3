"""Container formats that are accepted from untrusted senders, and playlists, which are not."""

from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.media.accepted_containers import check_container
from modalgate.shards.media.container_io import write_video, write_wave

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
