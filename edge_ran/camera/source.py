"""Sources of frames, each named by one string.

| string                                   | source                | live | end                        |
|------------------------------------------|-----------------------|------|----------------------------|
| ``0``, ``/dev/video0``                   | camera                | yes  | lost                       |
| ``csi://0``                              | camera on the ribbon  | yes  | lost                       |
| ``rtsp://…`` (``?udp``), ``tcp://…``     | network camera        | yes  | lost                       |
| ``http://…`` multipart or a single JPEG  | MJPEG camera          | yes  | lost                       |
| ``http://….mp4``, ``clip.mp4``           | video                 | no   | end of file, not a fault   |
| folder, ``shots/*.jpg``, ``shot.png``    | pictures, name order  | no   | end of list, not a fault   |
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import stat
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.camera.address import is_near, remedy_of_address, without_password
from edge_ran.camera.mjpeg import CsiCamera, HttpCamera, HttpVideo, open_http
from edge_ran.errors import CameraError, InputError, UsageError
from edge_ran.files import check_regular
from edge_ran.folder_walk import by_number, check_name, folders_in, walk
from edge_ran.picture import (
    CLIP_SUFFIXES,
    MOST_PIXELS,
    NAMED_SUFFIXES,
    check_pixels,
    decode_picture,
    eight_bit_bgr,
    is_picture,
    read_picture,
    square_pixels,
)
from edge_ran.video_file import is_text, why_unreadable

OPEN_TIMEOUT_S = 10.0
_VIDEO4LINUX = 81  # the major number of its devices, whatever udev calls them

# Small probes: FFmpeg's own take five seconds to open an RTSP stream. TCP first: UDP loses packets and smears pictures.
_RTSP_OPTIONS = "fflags;nobuffer|flags;low_delay|analyzeduration;500000|probesize;500000"
_environment = threading.Lock()


@dataclass(frozen=True)
class Frame:
    """One picture.

    ``image`` is (H, W, 3) uint8 BGR, upright; ``index`` counts from 0 without holes as pictures arrive;
    ``captured_at`` is when it arrived (seconds, ``time.monotonic``); ``timestamp`` its place in the source's own time
    (seconds); ``capture_ms`` what decoding took; ``name`` the picture's file, if it has one of its own.
    """

    image: NDArray[np.uint8]
    index: int
    captured_at: float
    timestamp: float
    capture_ms: float = 0.0
    name: str = ""


class FrameSource(Protocol):
    """``name`` is what the user typed; a ``live`` source goes on whether or not it is read; ``fps`` 0 is unknown."""

    name: str
    live: bool
    fps: float

    def read(self) -> Frame | None:
        """Return the next frame, or None at the end of a source that has one.

        Raises:
            InputError: this one picture is broken; the next may be whole.
            CameraError: a live source is lost.
        """

    def close(self) -> None:
        """Give the device, connection or file back. May be called twice."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame that can be read, to the end."""
        while True:
            with contextlib.suppress(InputError):
                frame = self.read()
                if frame is None:
                    return
                yield frame


def open_source(
    text: str, width: int = 0, height: int = 0, fps: float = 0.0, timeout_s: float = OPEN_TIMEOUT_S
) -> FrameSource:
    """Open whatever ``text`` names (see the table above).

    Args:
        width, height: the camera mode to ask for, pixels; 0 leaves it to the camera. Only for cameras of this machine.
        fps: frames a second to ask of a camera, or to play a video or folder at; 0 leaves it.
        timeout_s: a network source that is silent for so long is lost.

    Raises:
        CameraError: there is no such camera, or it does not answer.
        InputError: there is no such file, or it is not a video; the folder holds no pictures.
        UsageError: width and height for a source that has a size of its own.
    """
    if width < 0 or height < 0 or fps < 0:
        raise UsageError("width, height and fps must not be negative")
    if not text:
        raise UsageError("--camera names nothing", "try --camera 0, a file, or rtsp://…")
    scheme, is_url, rest = text.partition("://")
    text, shown = scheme.lower() + is_url + rest if is_url else text, without_password(text)
    if text.isdigit() or re.fullmatch(r"/dev/video\d+", text) or _is_device(text):
        return Device(text, width, height, fps)
    if text.startswith("csi://"):
        return _Counted(CsiCamera(text, width or 1280, height or 720, fps or 30.0, timeout_s))
    if re.search(r"\s!\s", text):
        what = "--camera takes no pipeline of GStreamer"
        raise UsageError(what, "--camera csi://0 is the camera on the ribbon cable; else /dev/video0 or rtsp://…")
    if width or height:
        raise UsageError(f"--width and --height choose a camera's mode; {shown} has its own size", "leave them out")
    if text.startswith(("rtsp://", "rtsps://", "rtmp://", "tcp://", "udp://")):
        if fps:
            raise UsageError(f"--fps cannot be set for {shown}", "set it in the camera's own settings")
        return NetworkVideo(text, timeout_s)
    if text.startswith(("http://", "https://")):
        opened = open_http(text, fps, timeout_s)
        return VideoFile(text, fps) if isinstance(opened, HttpVideo) else _Counted(opened)
    if "://" in text and not text.startswith("file://"):
        raise UsageError(f"--camera cannot read {scheme}://", "use rtsp://, http://, https://, tcp:// or csi://")
    path = Path(text.removeprefix("file://"))
    if path.is_dir():
        found = pictures_directly_in(path)
        clips = [name for name in next(walk(path)).files if Path(name).suffix.lower() in CLIP_SUFFIXES]
        if clips and not found:
            remedy = f"give one of them: --camera {shlex.quote(str(path / clips[0]))}"
            raise InputError(f"{text} holds clips, no pictures", remedy)
        if not found and (below := next(filter(pictures_directly_in, folders_in(path)), None)):
            what = f"{text} holds no pictures itself, but folders of them"
            raise InputError(what, f"give one of them: --camera {shlex.quote(str(below))}")
        return Pictures(text, found, fps)
    pattern = re.sub(r"%\d*d", "*", str(path))  # as FFmpeg writes it: img%03d.jpg
    if not path.exists() and glob.has_magic(pattern):
        found = sorted(map(Path, glob.glob(pattern, recursive=True)), key=by_number)
        return Pictures(text, [p for p in found if is_picture(p) and p.is_file()], fps)
    if not path.exists():
        remedy = "one at a time: --camera 0" if re.fullmatch(r"[\d,]+", text) else "try --camera 0, a file, or rtsp://…"
        raise InputError(f"no such camera, video or folder: {text}", remedy)
    check_name(path)
    if is_picture(path):
        return Pictures(text, [path], fps)
    return VideoFile(str(path), fps)


def pictures_directly_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, without those below it, in the order of their names and of numbers in these."""
    place = next(walk(folder))
    return [folder / name for name in sorted(place.files, key=by_number) if is_picture(name)]


class _Cv2Source(FrameSource):
    """A source behind ``cv2.VideoCapture``."""

    _may_stretch = False  # videos say the shape of their pixels, cameras do not

    def __init__(self, name: str, video: cv2.VideoCapture, live: bool, fps: float) -> None:
        self.name, self.live, self.fps = name, live, fps
        width, height = (video.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MOST_PIXELS:
            video.release()
            raise InputError(f"{name} has frames of {width:.0f} x {height:.0f} pixels", "make it smaller")
        self._video = video
        self._index = 0
        self._lock = threading.Lock()  # a release during a read is a crash in C++

    def read(self) -> Frame | None:
        with self._lock:
            began, worked = time.monotonic(), time.thread_time()
            if not self._video.grab():
                return self._end()
            arrived = self._arrived(began, time.monotonic(), time.thread_time() - worked)
            position_ms = self._video.get(cv2.CAP_PROP_POS_MSEC)
            whole, image = self._video.retrieve()
            decoded = time.monotonic()
        if not whole or image is None or image.size == 0:
            raise InputError(f"{self.name}: frame {self._index} is broken")
        if image.ndim not in (2, 3) or image.shape[0] == 1 or image.shape[2:] == (2,):  # bytes as the driver has them
            raise InputError(f"{self.name} sends pixels in a form that OpenCV does not unpack")
        pixels = eight_bit_bgr(np.asarray(image)[..., :3] if image.ndim == 3 else np.asarray(image), Path(self.name))
        if self._may_stretch:
            with self._lock:
                pixels = square_pixels(pixels, self._video)
        captured_at, timestamp = self._times(arrived, position_ms / 1e3)
        frame = Frame(pixels, self._index, captured_at, timestamp, capture_ms=(decoded - arrived) * 1e3)
        self._index += 1
        return frame

    def _end(self) -> Frame | None:
        raise CameraError(f"{self.name} stopped sending pictures", "check its cable, power and network")

    def _arrived(self, began: float, grabbed: float, worked_s: float) -> float:
        """When the picture was there, of a grab that worked so long for it: before it was decoded."""
        return grabbed

    def _times(self, arrived: float, position: float) -> tuple[float, float]:
        return arrived, position

    def close(self) -> None:
        # A read stuck in the driver keeps the lock; whoever waits for it here would hang as well.
        if self._lock.acquire(timeout=0.2):
            self._video.release()
            self._lock.release()


class Device(_Cv2Source):
    """A camera of this machine."""

    def __init__(self, name: str, width: int, height: int, fps: float) -> None:
        linux = sys.platform.startswith("linux")
        path = Path(f"/dev/video{name}" if name.isdigit() else name)
        if linux:
            _check_device(name, path)
            if not path.name.startswith("video") and os.major(path.stat().st_rdev) != _VIDEO4LINUX:
                raise CameraError(f"{name} is no camera", _cameras_here())
        number = re.fullmatch(r"/dev/video(\d+)", os.path.realpath(path))
        opened: int | str = int(number[1]) if number else os.path.realpath(path)
        video = cv2.VideoCapture(opened, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not video.isOpened():
            what = f"camera {name} cannot be opened"
            # A camera on the ribbon of a board shows as a device, too, but gives pixels that OpenCV does not read.
            ribbon = " (one on a board's ribbon cable is --camera csi://0)" if glob.glob("/dev/media*") else ""
            remedy = f"is another program using it, or is it no camera{ribbon}? {_cameras_here()}"
            raise CameraError(what, remedy)
        if width or height or fps:
            # USB 2 has no room for raw pictures above VGA at full rate; a camera without MJPEG ignores this.
            video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, width),
            (cv2.CAP_PROP_FRAME_HEIGHT, height),
            (cv2.CAP_PROP_FPS, fps),
        ):
            if value:
                video.set(setting, value)
        super().__init__(name, video, live=True, fps=max(0.0, video.get(cv2.CAP_PROP_FPS)))
        self.size_asked = (width, height)

    def _end(self) -> Frame | None:
        if self._index == 0:  # the driver refuses to stream: mostly, several cameras share one USB
            raise CameraError(f"{self.name} sends no picture; where cameras share a USB: --width 640 --height 480")
        return super()._end()

    def _times(self, arrived: float, position: float) -> tuple[float, float]:
        # V4L2 stamps a picture with the monotonic clock when it was taken: that counts the driver's queue as latency.
        stamped = 0.0 <= arrived - position < 2.0
        return (position if stamped else arrived), position


def _is_device(text: str) -> bool:
    """Whether a path, or the link that it is, leads to a camera, such as /dev/v4l/by-id/usb-…, or to a device in /dev.

    What leads nowhere below /dev is a device that is not plugged in.
    """
    path = Path(text)
    try:
        status = path.stat()
        is_camera = os.major(status.st_rdev) == _VIDEO4LINUX
        return stat.S_ISCHR(status.st_mode) and (is_camera or text.startswith("/dev/"))
    except (OSError, ValueError):
        return text.startswith("/dev/") and not text.startswith("/dev/shm/")


def _check_device(name: str, path: Path) -> None:
    """Say what OpenCV does not: that there is no such camera, or that this user may not use it."""
    if not path.exists():
        raise CameraError(f"there is no camera {name}", _cameras_here())
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError(f"this user may not use {path}", "sudo usermod -aG video $USER, then log in again")


def _cameras_here() -> str:
    found = sorted(glob.glob("/dev/video*"), key=lambda path: (len(path), path))
    if found:
        return f"found: {', '.join(found)}"
    return "none is plugged in; --camera also takes a video, a folder, rtsp://… or http://…"


class NetworkVideo(_Cv2Source):
    """RTSP, or a stream without a protocol of its own, through FFmpeg."""

    _may_stretch = True

    def __init__(self, name: str, timeout_s: float) -> None:
        milliseconds = int(timeout_s * 1e3)
        parameters = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_TIMEOUT_S * 1e3)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
            *(cv2.CAP_PROP_N_THREADS, 1),  # frame threads hold pictures back, one for each thread
        ]
        transport = "rtsp_transport;udp" if re.search(r"[?&]udp$", name) else "rtsp_flags;prefer_tcp"
        with _environment, _ffmpeg_options(f"{transport}|{_RTSP_OPTIONS}"):
            video = cv2.VideoCapture(name, cv2.CAP_FFMPEG, parameters)
        if not video.isOpened():
            raise CameraError(f"{without_password(name)} does not answer", remedy_of_address(name))
        fps = video.get(cv2.CAP_PROP_FPS)
        super().__init__(without_password(name), video, live=True, fps=fps if 0 < fps <= 240 else 0.0)

    def _arrived(self, began: float, grabbed: float, worked_s: float) -> float:
        return grabbed - worked_s  # it waits for the network, then decodes, in this one thread


class VideoFile(_Cv2Source):
    """A video file or address. Rotation tags are honoured by OpenCV, so portrait phone video is upright."""

    _may_stretch = True

    def __init__(self, name: str, fps: float = 0.0) -> None:
        shown = without_password(name)
        if "://" not in name:
            check_regular(name, "video")
        milliseconds = int(OPEN_TIMEOUT_S * 1e3)  # for what comes over a network; a file never waits so long
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        with _no_proxy(name):
            is_file = "://" not in name
            # Of a relative name FFmpeg takes what stands before a colon for a protocol.
            place = str(Path(name).absolute()) if is_file else name
            video = None if is_file and is_text(name) else cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)
        if video is None or not video.isOpened():
            why = why_unreadable(name) if is_file else ("is no video that can be read", remedy_of_address(name))
            raise InputError(f"{shown} {why[0]}", why[1])
        own = video.get(cv2.CAP_PROP_FPS)
        own = own if 0 < own <= 1000 else 25.0
        super().__init__(shown, video, live=False, fps=fps or own)
        self._speed = self.fps / own
        self.frames_announced = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._last = -1.0 / self.fps

    def _end(self) -> None:
        return None

    def _arrived(self, began: float, grabbed: float, worked_s: float) -> float:
        return began  # it waits for nothing but the decoder

    def _times(self, arrived: float, position: float) -> tuple[float, float]:
        timestamp = position / self._speed
        if timestamp <= self._last:  # containers without times
            timestamp = self._last + 1 / self.fps
        self._last = timestamp
        return arrived, timestamp


class Pictures(FrameSource):
    """Picture files in order of their names; ``fps`` 0 means as fast as they are wanted."""

    live = False

    def __init__(self, name: str, paths: list[Path], fps: float = 0.0) -> None:
        if not paths:
            raise InputError(f"{name} holds no pictures", f"put {NAMED_SUFFIXES} files there")
        self.name, self.fps, self.frames_announced = name, fps, len(paths)
        self._paths = iter(paths)
        self._index = 0

    def read(self) -> Frame | None:
        path = next(self._paths, None)
        if path is None:
            return None
        started = time.monotonic()
        image = read_picture(path)
        arrived = time.monotonic()
        timestamp = self._index / self.fps if self.fps else 0.0
        frame = Frame(image, self._index, arrived, timestamp, (arrived - started) * 1e3, str(path))
        self._index += 1
        return frame

    def close(self) -> None:
        """Nothing is held open between two pictures."""


class _Counted(FrameSource):
    """Numbers the JPEG pictures of a camera that hands them out one by one."""

    live = True

    def __init__(self, camera: HttpCamera | CsiCamera) -> None:
        self.name, self.fps = without_password(camera.name), camera.fps
        self._camera = camera
        self._index = 0
        self._opened_at = time.monotonic()

    def read(self) -> Frame | None:
        picture = self._camera.read()
        arrived = time.monotonic()
        image = _decoded(picture, self.name)
        decode_ms = (time.monotonic() - arrived) * 1e3
        frame = Frame(image, self._index, arrived, arrived - self._opened_at, decode_ms)
        self._index += 1
        return frame

    def close(self) -> None:
        self._camera.close()


def _decoded(picture: bytes, name: str) -> NDArray[np.uint8]:
    """Decode what a camera sent: a JPEG that ends as it should by OpenCV, which is quicker, anything else by Pillow."""
    if picture.startswith(b"\xff\xd8") and picture.rstrip(b"\r\n\0").endswith(b"\xff\xd9"):
        check_pixels(picture, name)
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:
            return np.asarray(image, np.uint8)
    try:
        return decode_picture(picture, name)
    except InputError as error:
        raise InputError(f"{name} sent a broken picture") from error


@contextlib.contextmanager
def _no_proxy(name: str) -> Iterator[None]:
    """Let FFmpeg ask a host of this network itself: it, too, takes the proxy that the environment names."""
    if "://" not in name or not is_near(urllib.parse.urlsplit(name).hostname or ""):
        yield
        return
    with _environment, _ffmpeg_options("http_proxy;none"):  # what is no http:// address is no proxy
        yield


@contextlib.contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """OpenCV takes FFmpeg's options from the environment only; the user's own stand."""
    key = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = os.environ.get(key)
    os.environ.setdefault(key, options)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(key, None)
