"""THE one way to read a picture file, for data sets, calibration, benchmarks and the run loop.

Pillow decodes: it says what is cut short, where OpenCV fills up with grey, and it knows the forms in which programs
write rotation and transparency.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.errors import InputError
from edge_ran.python_command import pip

if TYPE_CHECKING:
    from PIL import Image  # imported where it is used: a camera needs none of it

_USUAL = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif")
PICTURE_SUFFIXES = (*_USUAL, ".tiff", ".jfif", ".jpe", ".apng", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm")
# Clips, whose frames are pictures, too.
CLIP_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".gif"),
    *(".wmv", ".mpg", ".mpeg", ".3gp", ".flv", ".ts", ".mts", ".m2ts", ".ogv"),  # camcorders, recorders, old phones
    *(".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),  # streams without times, as a Raspberry Pi films
    *(".asf", ".divx", ".vob", ".m2v", ".f4v", ".3g2", ".mxf", ".dav"),
)
NAMED_SUFFIXES = ", ".join(_USUAL)  # as an error line names them
HEIF_SUFFIXES = (".heic", ".heif")  # what iPhones write
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")  # ISO 23008-12; phones write the first
_AVIF_SUFFIXES = (".avif",)
_MAY_HAVE_MORE = (".webp", ".png", ".apng", ".tif", ".tiff", *_AVIF_SUFFIXES)
MOST_PIXELS = 1 << 27  # decoded, they take 400 MB; phones' largest pictures have 108 million
_FORMATS_BY_START = {b"\xff\xd8\xff": ("JPEG",), b"\x89PNG\r\n\x1a\n": ("PNG",)}  # MPO is JPEG to begin with
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
_ORIENTATION = 0x0112
# Of its own, lower limit of pixels, and of metadata that it cannot read.
warnings.filterwarnings("ignore", module=r"PIL\..*")
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def is_picture(name: str | Path) -> bool:
    """Whether a file of that name is a picture that this installation reads."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _AVIF_SUFFIXES:
        return "AVIF" in _every_format()
    return suffix in PICTURE_SUFFIXES or (suffix in HEIF_SUFFIXES and reads_heif())


def has_more_frames(path: Path) -> bool:
    """Whether a picture file says that it has several frames or pages; of these, ``read_picture`` takes the first.

    Animated WebP, PNG and AVIF, and TIFF. Decodes nothing.
    """
    if path.suffix.lower() not in _MAY_HAVE_MORE:
        return False
    with contextlib.suppress(OSError, struct.error), open(path, "rb") as file:
        head = file.read(512)
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
            return bool(head[20:] and head[20] & 2)
        if head.startswith(b"\x89PNG"):
            return b"acTL" in head  # it lies before all pixels
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _has_second_page(file, "<" if head[:2] == b"II" else ">")
        return head[4:12] == b"ftypavis"
    return False


def _has_second_page(file: BinaryIO, order: str) -> bool:
    """Whether the first page of a TIFF, read in that byte order, names a next one (TIFF 6.0, section 2)."""
    file.seek(4)
    (start,) = struct.unpack(f"{order}I", file.read(4))
    file.seek(start)
    (entries,) = struct.unpack(f"{order}H", file.read(2))
    file.seek(start + 2 + 12 * entries)
    (following,) = struct.unpack(f"{order}I", file.read(4))
    return bool(following)


@functools.cache
def reads_heif() -> bool:
    """Whether HEIC pictures can be read: pillow-heif is installed."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def heif_remedy() -> str:
    """What to type where HEIC pictures cannot be read."""
    return f"{pip('install pillow-heif')}, or convert them to JPEG"


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a PNG, JPEG, WebP, BMP, TIFF, PPM or, with pillow-heif, HEIC as (H, W, 3) uint8 in BGR order, upright.

    EXIF rotation is applied, transparency laid over white, 16 bits reduced to 8, grey repeated in three channels; of
    an animation, the first frame; of a TIFF, the first page.

    Raises:
        InputError: the file is missing, empty, cut short, not a picture, or of more than ``MOST_PIXELS``.
    """
    return decode_picture(files.read_bytes(path, "picture"), path)


def decode_picture(data: bytes, path: Path | str) -> NDArray[np.uint8]:
    """Decode the bytes of a picture, as ``read_picture`` does; ``path`` names it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
            _check_size(image, path)
            return _bgr(image, path)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"picture {path} has more than {MOST_PIXELS:,} pixels", "make it smaller") from error
    except Exception as error:  # Pillow and its codecs raise their own kinds for broken bytes
        if "truncated" in str(error).lower():
            raise InputError(f"picture {path} is truncated", "copy it again") from error
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and not reads_heif():  # under any name
            raise InputError(f"picture {path} is HEIC, whatever its name", heif_remedy()) from error
        raise InputError(f"picture {path} cannot be decoded", "it must be a PNG, JPEG, WebP, BMP or TIFF") from error


def check_pixels(data: bytes, name: str) -> None:
    """Raise InputError unless the header of a picture says that it is one, of no more than ``MOST_PIXELS``."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
            _check_size(image, name)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} sent a picture of more than {MOST_PIXELS:,} pixels", "make it smaller") from error
    except Exception as error:  # Pillow raises many kinds for broken bytes
        raise InputError(f"{name} sent a broken picture") from error


def _check_size(image: Image.Image, path: Path | str) -> None:
    # Transparency and 16 bits are mixed and reduced in several copies.
    is_plain = image.mode in ("RGB", "L", "P", "1", "CMYK", "YCbCr") and not _is_transparent(image)
    most = MOST_PIXELS if is_plain else MOST_PIXELS // 4
    if image.width * image.height > most:
        what = f"picture {path} has {image.width} x {image.height} pixels, more than {most:,}"
        raise InputError(what, "make it smaller")


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def eight_bit_bgr(frame: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Make (H, W, 3) uint8 BGR of what OpenCV decoded. Raises InputError, naming ``path``, unless of 8 or 16 bits."""
    if frame.dtype == np.uint16:
        frame = np.rint(frame / 257.0).astype(np.uint8)
    if frame.dtype != np.uint8:
        raise InputError(f"picture {path} has {frame.dtype} pixels", "save it with 8 or 16 bits a channel")
    if frame.ndim == 2 or frame.shape[2] == 1:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), np.uint8)
    if frame.shape[2] == 4:
        alpha = frame[:, :, 3:].astype(np.uint16)
        blended = frame[:, :, :3] * alpha + 255 * (255 - alpha)
        frame = ((blended + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(frame)


def square_pixels(frame: NDArray[np.uint8], video: cv2.VideoCapture) -> NDArray[np.uint8]:
    """Return a frame of a video, stretched where its pixels are not square, as those of television and DVDs are not."""
    across, down = video.get(cv2.CAP_PROP_SAR_NUM), video.get(cv2.CAP_PROP_SAR_DEN)
    if across <= 0 or down <= 0 or across == down or not 0.25 <= across / down <= 4:  # unknown or square
        return frame
    if round(video.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 and video.get(cv2.CAP_PROP_ORIENTATION_AUTO):
        across, down = down, across
    height, width = frame.shape[:2]
    width, height = max(width, round(width * across / down)), max(height, round(height * down / across))
    if width * height > MOST_PIXELS or (height, width) == frame.shape[:2]:
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _formats(data: bytes) -> tuple[str, ...]:
    """The formats that these bytes may be of. JPEG and PNG need no other reader, and all readers take 0.1 s to load."""
    return next((known for start, known in _FORMATS_BY_START.items() if data.startswith(start)), ()) or _every_format()


@functools.cache
def _every_format() -> tuple[str, ...]:
    """The formats that are read, of those that this Pillow has: no others, whatever a file claims to be."""
    from PIL import Image

    reads_heif()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _bgr(image: Image.Image, path: Path | str) -> NDArray[np.uint8]:
    from PIL.Image import Transpose

    is_transparent = _is_transparent(image)  # as its size was judged: the end of a PNG may claim it as well
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    upright = image.transpose(Transpose[turn]) if turn else image
    if is_transparent:
        rgba = np.asarray(upright.convert("RGBA"))
        return eight_bit_bgr(np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA)), Path(path))
    if image.mode.startswith("I"):  # 16 bits of grey
        values = np.asarray(upright)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"picture {path} has {values.dtype} pixels", "save it with 8 or 16 bits a channel")
        return eight_bit_bgr(values.astype(np.uint16), Path(path))
    if image.mode == "F":
        raise InputError(f"picture {path} has float pixels", "save it with 8 or 16 bits a channel")
    pixels = np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
    image.close()  # before the next copy: a phone's largest pictures take 300 MB each time
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    with contextlib.suppress(Exception):  # Pillow's readers of EXIF and XMP raise many kinds for damage
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1
