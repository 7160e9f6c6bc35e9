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

import glob
import re
import shlex
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.camera.address import OF_PHONES, without_password
from edge_ran.camera.frame import Frame, FrameSource
from edge_ran.camera.mjpeg import CsiCamera, HttpCamera, HttpVideo, open_http
from edge_ran.camera.opencv import OPEN_TIMEOUT_S, Device, NetworkVideo, VideoFile, is_device
from edge_ran.errors import InputError, UsageError
from edge_ran.folder_walk import by_number, check_name, folders_in, walk
from edge_ran.picture import CLIP_SUFFIXES, NAMED_SUFFIXES, check_pixels, decode_picture, is_picture, read_picture


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
    if text.isdigit() or re.fullmatch(r"/dev/video\d+", text) or is_device(text):
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
        return VideoFile(opened.address, fps) if isinstance(opened, HttpVideo) else _Counted(opened)
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
        if text in OF_PHONES:
            remedy = "this is a phone's camera: add --device phone"
        raise InputError(f"no such camera, video or folder: {text}", remedy)
    check_name(path)
    if is_picture(path):
        return Pictures(text, [path], fps)
    return VideoFile(str(path), fps)


def pictures_directly_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, without those below it, in the order of their names and of numbers in these."""
    place = next(walk(folder))
    return [folder / name for name in sorted(place.files, key=by_number) if is_picture(name)]


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
