"""A camera that speaks RTSP (RFC 2326): H.264 (RFC 6184) and mu-law sound in real time, all by one connection."""

import base64
import re
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

RATE = 8000
LARGEST_PAYLOAD = 1400
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=hall
t=0 0
a=range:npt=now-
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:video
m=audio 0 RTP/AVP 0
a=control:audio
"""
# By interleaved channel: payload type and ticks per second.
TRACKS = {0: (96, 90000), 2: (0, RATE)}


class RtspCamera(socketserver.ThreadingTCPServer):
    """Shows pictures (T, H, W, 3) with sound (N,) at 8000 Hz over and over from `start` on, whoever looks.

    Its clock and its numbers go on when nobody is connected, so whoever comes may have to wait for a key frame, every
    half second. Lists are pictures and sound that another camera has encoded. `login`: `user:password` that it asks
    for; `seconds`: how long it shows before it hangs up.
    """

    allow_reuse_address, daemon_threads, block_on_close = True, True, False

    def __init__(
        self,
        pictures: NDArray[np.uint8] | list[list[bytes]],
        sound: NDArray[np.float32] | list[bytes],
        rate: int,
        *,
        port: int = 0,
        login: str = "",
        seconds: float = float("inf"),
    ) -> None:
        self.pictures = pictures if isinstance(pictures, list) else encode_pictures(pictures, rate)
        self.sound = sound if isinstance(sound, list) else encode_sound(sound, RATE // rate)
        self.rate, self.login, self.seconds = rate, login, seconds
        self.began = time.monotonic()
        self.sessions: list[Session] = []
        super().__init__(("127.0.0.1", port), Session)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"rtsp://{self.login}{'@' if self.login else ''}127.0.0.1:{self.server_address[1]}/hall"

    def die(self) -> None:
        """As one whose process is killed: its port is free, its connections end."""
        self.shutdown()
        self.server_close()
        for session in list(self.sessions):
            session.over.set()
            self.shutdown_request(session.connection)

    def __exit__(self, *fault: object) -> None:
        self.die()


class Session(socketserver.StreamRequestHandler):
    """One client: answers its requests, and sends to it once it plays."""

    server: RtspCamera  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        super().setup()
        self.sending, self.over, self.playing = threading.Lock(), threading.Event(), threading.Event()
        self.server.sessions.append(self)

    def handle(self) -> None:
        try:
            while (first := self.rfile.read(1)) and not self.over.is_set():
                if first == b"$":  # the client's report on what it received
                    self.rfile.read(struct.unpack(">BH", self.rfile.read(3))[1])
                    continue
                head = first
                while not head.endswith(b"\r\n\r\n"):
                    head += self.rfile.readline()
                self.answer(head.decode())
        except OSError:
            pass
        finally:
            self.over.set()
            self.server.sessions.remove(self)

    def answer(self, request: str) -> None:
        method, url = request.split()[:2]
        status, headers, body = "200 OK", ["Session: 7"], ""
        token = base64.b64encode(self.server.login.encode()).decode()
        if self.server.login and f"Authorization: Basic {token}\r\n" not in request:
            status, headers = "401 Unauthorized", ['WWW-Authenticate: Basic realm="camera"']
        elif "/hall" not in url:
            status = "404 Not Found"
        elif method == "OPTIONS":
            headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            headers, body = [*headers, f"Content-Base: {url}/", "Content-Type: application/sdp"], SDP
        elif method == "SETUP":
            transport = re.search(r"Transport: (RTP/AVP/TCP;unicast;interleaved=\d+-\d+)", request)
            status = "200 OK" if transport else "461 Unsupported Transport"
            headers += [f"Transport: {transport[1]}"] if transport else []
        number = re.search(r"CSeq: (\d+)", request)
        lines = [
            f"RTSP/1.0 {status}",
            f"CSeq: {number[1] if number else 0}",
            *headers,
            f"Content-Length: {len(body)}",
        ]
        self.send("\r\n".join([*lines, "", body]).encode())
        if method == "PLAY":
            threading.Thread(target=self.play, daemon=True).start()
        elif method == "TEARDOWN":
            self.over.set()

    def send(self, data: bytes) -> None:
        with self.sending:
            self.connection.sendall(data)

    def play(self) -> None:
        camera, sequence = self.server, dict.fromkeys(TRACKS, 65530)
        first = number = int((time.monotonic() - camera.began) * camera.rate)
        try:
            for channel in TRACKS:
                self.report(channel, number / camera.rate)
            while (number - first) / camera.rate < camera.seconds:
                seconds = number / camera.rate
                if self.over.wait(max(camera.began + seconds - time.monotonic(), 0)):
                    return
                payloads = list(packetise(camera.pictures[number % len(camera.pictures)]))
                pieces = [(0, piece, piece is payloads[-1]) for piece in payloads]
                for channel, payload, last in [*pieces, (2, camera.sound[number % len(camera.sound)], False)]:
                    kind, ticks = TRACKS[channel]
                    stamp, order = round(seconds * ticks) % 2**32, sequence[channel] % 2**16
                    packet = struct.pack(">BBHII", 0x80, kind | last << 7, order, stamp, channel) + payload
                    self.send(struct.pack(">cBH", b"$", channel, len(packet)) + packet)
                    sequence[channel] += 1
                number += 1
        except OSError:
            pass
        self.over.set()
        self.server.shutdown_request(self.connection)

    def report(self, channel: int, seconds: float) -> None:
        """RTCP: which time of the track is which time of day, by which the client puts sound to pictures."""
        whole, part = divmod(time.time() + 2208988800, 1)
        stamp = round(seconds * TRACKS[channel][1]) % 2**32
        told = struct.pack(">BBHIIIIII", 0x80, 200, 6, channel, int(whole), int(part * 2**32), stamp, 0, 0)
        self.send(struct.pack(">cBH", b"$", channel + 1, len(told)) + told)


def encode_pictures(pictures: NDArray[np.uint8], rate: int) -> list[list[bytes]]:
    """Each picture as its NAL units; a key frame, with the parameter sets, every half second."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = pictures.shape[1:3]
    encoder.pix_fmt, encoder.framerate, encoder.thread_count = "yuv420p", Fraction(rate), 1
    encoder.options = {"g": str(rate // 2), "bf": "0", "tune": "zerolatency"}
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    units = [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
    return [[unit for unit in re.split(b"\0\0\0?\x01", bytes(packet)) if unit] for packet in units]


def encode_sound(sound: NDArray[np.float32], size: int) -> list[bytes]:
    """Pieces of `size` samples by the mu law, each in a byte."""
    levels = np.sign(sound) * np.log1p(255 * np.abs(sound)) / np.log(256)
    codes = np.clip(127 - np.abs(levels) * 127, 0, 127).astype(np.uint8) | np.where(levels < 0, 0, 128).astype(
        np.uint8
    )
    return [codes[place : place + size].tobytes() for place in range(0, len(codes), size)]


def packetise(units: list[bytes]) -> Iterator[bytes]:
    """NAL units as RTP payloads: whole, or in fragments (FU-A) where they are large."""
    for unit in units:
        if len(unit) <= LARGEST_PAYLOAD:
            yield unit
            continue
        pieces = [unit[place : place + LARGEST_PAYLOAD] for place in range(1, len(unit), LARGEST_PAYLOAD)]
        for number, piece in enumerate(pieces):
            ends = (number == 0) << 7 | (number == len(pieces) - 1) << 6
            yield bytes([unit[0] & 0x60 | 28, ends | unit[0] & 0x1F]) + piece
