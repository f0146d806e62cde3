"""What is accepted of files from untrusted senders: formats, and tables that are not longer than the file."""

from pathlib import Path

# Containers that hold their own media. Playlists (HLS, concat, SDP) are excluded: FFmpeg would open any file or
# address that they name.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,mjpeg,h264,hevc,ivf,obu,ogg,flv,asf,mxf,nut,dv,"
    "wav,w64,mp3,flac,aac,ac3,amr,aiff,au,caf"
)
# What else files are read from that are not sent over HTTP: pictures of frame folders, and rare containers.
OTHERS = "png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,webp_pipe,gif,apng,yuv4mpegpipe,rm,ape,tta,wv,amrnb,amrwb,eac3,dts"
# Boxes of an MP4 that list samples, and bytes from the end of their name to the number of samples.
_LISTS = {b"stsz": 8, b"trun": 4}


def check_tables(path: Path) -> None:
    """Raises `ValueError` for an MP4 that announces more samples than it has bytes.

    Samples of equal size take no space in the table, and FFmpeg keeps an entry for each: one kilobyte could fill the
    memory. Other formats are not checked.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 0
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if place == 0 and kind not in (b"ftyp", b"moov", b"free", b"skip", b"wide", b"mdat", b"moof", b"styp"):
                return
            length = int.from_bytes(head[8:], "big") if length == 1 else length or size - place
            if kind in (b"moov", b"moof"):
                file.seek(place)
                _check_box(path, file.read(min(length, size - place)), size)
            place += max(length, 8)


def _check_box(path: Path, box: bytes, size: int) -> None:
    for name, offset in _LISTS.items():
        place = box.find(name)
        while place >= 0:
            count = int.from_bytes(box[place + 4 + offset : place + 8 + offset], "big")
            if count > size:
                raise ValueError(f"it announces {count} samples in {size} bytes")
            place = box.find(name, place + 4)


def no_media(path: Path) -> str:
    """Says why FFmpeg finds no media in a file."""
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        return "it is empty"
    if head[4:] == b"ftyp":
        return "it is cut short: the index at the end of the MP4 is missing"
    return "it holds no media that FFmpeg can read"
