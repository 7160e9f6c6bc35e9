"""What OpenCV reads itself: cameras of this machine, RTSP and other network streams, videos."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge_ran.camera.address import is_near, remedy_of_address, without_password
from edge_ran.camera.frame import Frame, FrameSource
from edge_ran.errors import CameraError, InputError
from edge_ran.files import check_regular
from edge_ran.picture import MOST_PIXELS, eight_bit_bgr, square_pixels
from edge_ran.video_file import FASTEST, MOST_TORN_IN_A_ROW, USUAL_RATE, is_text, why_unreadable

OPEN_TIMEOUT_S = 10.0
_VIDEO4LINUX = 81  # the major number of its devices, whatever udev calls them
_MOST_TORN_OF_A_STREAM = 25  # frames in a row that cannot be decoded; then the stream is lost
_QUICK_S = 1.0  # a frame that cannot be grabbed for longer is not torn: nothing came

# Small probes: FFmpeg's own take five seconds to open an RTSP stream. TCP first: UDP loses packets and smears pictures.
_RTSP_OPTIONS = "fflags;nobuffer|flags;low_delay|analyzeduration;500000|probesize;500000"
_environment = threading.Lock()


class _Cv2Source(FrameSource):
    """A source behind ``cv2.VideoCapture``."""

    _may_stretch = False  # videos say the shape of their pixels, cameras do not
    _most_torn = 1  # frames in a row that cannot be grabbed; then it is the end

    def __init__(self, name: str, video: cv2.VideoCapture, live: bool, fps: float) -> None:
        self.name, self.live, self.fps = name, live, fps
        width, height = (video.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MOST_PIXELS:
            video.release()
            raise InputError(f"{name} has frames of {width:.0f} x {height:.0f} pixels", "make it smaller")
        self._video = video
        self._index = 0
        self._broken = 0
        self._torn, self._is_grabbed = 0, False  # frames to tell of, and whether the one behind them waits
        self._lock = threading.Lock()  # a release during a read is a crash in C++

    def read(self) -> Frame | None:
        with self._lock:
            began, worked = time.monotonic(), time.thread_time()
            if not self._grab():
                return self._end()
            arrived = self._arrived(began, time.monotonic(), time.thread_time() - worked)
            position_ms = self._video.get(cv2.CAP_PROP_POS_MSEC)
            whole, image = self._video.retrieve()
            decoded = time.monotonic()
        if not whole or image is None or image.size == 0:
            raise self._is_broken()
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

    def _grab(self) -> bool:
        """Grab the next frame; False at the end. A torn frame fails as the end does: what follows tells them apart.

        Raises:
            InputError: a frame is torn, and there is one behind it.
        """
        while not self._is_grabbed:
            began = time.monotonic()
            self._is_grabbed = self._video.grab()
            if self._is_grabbed:
                break
            self._torn += 1
            if self._torn >= self._most_torn or (self.live and time.monotonic() - began > _QUICK_S):
                self._torn = 0
                return False
        if self._torn:
            self._torn -= 1
            raise self._is_broken()
        self._is_grabbed = False
        return True

    def _is_broken(self) -> InputError:
        self._broken += 1
        return InputError(f"{self.name}: frame {self._index + self._broken - 1} is broken")

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


def is_device(text: str) -> bool:
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
    _most_torn = _MOST_TORN_OF_A_STREAM

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
        own = own if 0 < own <= FASTEST else USUAL_RATE
        super().__init__(shown, video, live=False, fps=fps or own)
        if is_file:  # over a network each attempt may wait for the time-out
            self._most_torn = MOST_TORN_IN_A_ROW
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
