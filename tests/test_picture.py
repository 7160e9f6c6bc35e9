from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ran import picture as module
from edge_ran.errors import InputError
from edge_ran.picture import decode_picture, is_picture, read_picture


def smooth(height: int = 40, width: int = 64) -> np.ndarray:
    """A picture without symmetry: (height, width, 3) uint8 BGR."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x % 256, 6 * y, (x + y) * 2], -1).astype(np.uint8)


def encoded(picture: np.ndarray, suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, kind: int, row: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for _ in range(height))))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def jpeg_with_exif(picture: np.ndarray, orientation: int) -> bytes:
    data, block = encoded(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98), b"Exif\0\0" + exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


# What a viewer does with each EXIF orientation (TIFF 6.0, tag 274).
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".jpg"])
def test_every_format(tmp_path, suffix):
    options = {".webp": (cv2.IMWRITE_WEBP_QUALITY, 101), ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 100)}.get(suffix, ())
    path = tmp_path / f"p{suffix}"
    path.write_bytes(encoded(smooth(), suffix, *options))
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    assert picture.shape == (40, 64, 3)
    if suffix != ".jpg":
        np.testing.assert_array_equal(picture, smooth())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    wanted = UPRIGHT[orientation](smooth())
    (tmp_path / "p.jpg").write_bytes(jpeg_with_exif(smooth(), orientation))
    picture = read_picture(tmp_path / "p.jpg")
    assert picture.shape == wanted.shape
    assert np.abs(picture.astype(int) - wanted).mean() < 6  # JPEG; another orientation is off by 40 and more

    opaque = np.dstack([smooth(), np.full((40, 64), 255, np.uint8)])
    data = encoded(opaque, ".png")
    (tmp_path / "alpha.png").write_bytes(data[:33] + chunk(b"eXIf", exif(orientation)) + data[33:])
    np.testing.assert_array_equal(read_picture(tmp_path / "alpha.png"), wanted)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_over_white(tmp_path, alpha):
    wanted = np.rint((smooth() * float(alpha) + 255 * (255 - alpha)) / 255)
    layers = np.dstack([smooth(), np.full((40, 64), alpha, np.uint8)])
    for suffix, options in ((".png", ()), (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101))):
        path = tmp_path / f"p{suffix}"
        path.write_bytes(encoded(layers, suffix, *options))
        assert np.abs(read_picture(path) - wanted).max() <= (1 if alpha else 0)


def test_transparency_of_palettes_and_grey(tmp_path):
    palette = chunk(b"PLTE", bytes([1, 2, 3, 10, 20, 30])) + chunk(b"tRNS", bytes([255, 0]))
    (tmp_path / "palette.png").write_bytes(png(4, 3, 8, 3, bytes([0, 1, 0, 1]), palette))
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png")[0, :2], [[3, 2, 1], [255] * 3])
    (tmp_path / "grey.png").write_bytes(png(2, 3, 8, 4, bytes([100, 0, 100, 255])))
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png")[0], [[255] * 3, [100] * 3])


def test_sixteen_bits_and_one(tmp_path):
    (tmp_path / "deep.png").write_bytes(png(4, 3, 16, 0, struct.pack(">4H", 65535, 0, 32896, 257)))
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png")[0, :, 0], [255, 0, 128, 1])
    (tmp_path / "flat.png").write_bytes(png(4, 3, 1, 0, bytes([0b10100000])))
    np.testing.assert_array_equal(read_picture(tmp_path / "flat.png")[0, :, 2], [255, 0, 255, 0])


def test_grey_jpeg(tmp_path):
    (tmp_path / "p.jpg").write_bytes(encoded(smooth()[:, :, 0], ".jpg"))
    picture = read_picture(tmp_path / "p.jpg")
    assert (picture == picture[:, :, :1]).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("part", [0.99, 0.5, 0.02])
def test_truncated(tmp_path, suffix, part):
    data = jpeg_with_exif(smooth(), 1) if suffix == ".jpg" else encoded(smooth(), suffix)
    path = tmp_path / f"p{suffix}"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match=f"picture .*p{suffix} (is truncated|cannot be decoded)"):
        read_picture(path)


def test_bytes_after_the_end_do_not_matter(tmp_path):
    """Phones append a motion picture to a JPEG."""
    (tmp_path / "p.jpg").write_bytes(encoded(smooth(), ".jpg") + b"\0" * 5000)
    assert read_picture(tmp_path / "p.jpg").shape == (40, 64, 3)


def test_empty_missing_and_foreign(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for name, words in (("empty.png", "is empty"), ("text.png", "cannot be decoded"), ("none.png", "No such file")):
        with pytest.raises(InputError, match=words):
            read_picture(tmp_path / name)


def segments(jpeg: bytes) -> tuple[list[bytes], bytes]:
    """The marker segments before a JPEG's scan, and the scan with all behind it."""
    place, found = 2, []
    while jpeg[place + 1] != 0xDA:
        size = 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        found.append(jpeg[place : place + size])
        place += size
    return found, jpeg[place:]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("before", range(4))
def test_fill_bytes_before_a_marker(before, count):
    """ITU T.81, B.1.1.2: any marker may be preceded by any number of bytes 0xFF."""
    jpeg = encoded(smooth(), ".jpg")
    parts, scan = segments(jpeg)
    filled = b"\xff\xd8" + b"".join(parts[:before]) + b"\xff" * count + b"".join(parts[before:]) + scan
    at_end = jpeg[:-2] + b"\xff" * count + jpeg[-2:]
    for data in (filled, at_end):
        np.testing.assert_array_equal(decode_picture(data, "p.jpg"), decode_picture(jpeg, "p.jpg"))


def pillow(image: Image.Image, kind: str, **options) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("alpha", [False, True])
def test_exif_of_webp_with_and_without_the_prefix_of_jpeg(prefix, alpha):
    layers = np.dstack([smooth()[..., ::-1], np.full((40, 64), 255, np.uint8)]) if alpha else smooth()[..., ::-1]
    data = pillow(Image.fromarray(layers), "WEBP", lossless=True, exif=prefix + exif(6))
    np.testing.assert_array_equal(decode_picture(data, "p.webp"), UPRIGHT[6](smooth()))


def test_what_lies_before_the_transparency_does_not_hide_it():
    palette = chunk(b"PLTE", bytes([1, 2, 3, 10, 20, 30])) + chunk(b"tRNS", bytes([255, 0]))
    words = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 1500)
    picture = decode_picture(png(4, 3, 8, 3, bytes([0, 1, 0, 1]), words + palette), "p.png")
    np.testing.assert_array_equal(picture[0, :2], [[3, 2, 1], [255] * 3])


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "BMP", "JPEG"])
def test_the_bytes_tell_the_format_not_the_name(kind):
    picture = decode_picture(pillow(Image.fromarray(smooth()[..., ::-1]), kind), "p.jpg")
    assert np.abs(picture.astype(int) - smooth()).mean() < 12


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    for width, height in ((20_000, 7_000), (60_000, 60_000)):
        with pytest.raises(InputError, match="more than 134,217,728"):
            decode_picture(png(width, height, 1, 0, b"")[:200], "p.png")
    monkeypatch.setattr(module, "MOST_PIXELS", 64 * 40)
    assert decode_picture(encoded(smooth(), ".png"), "p.png").shape == (40, 64, 3)


@pytest.mark.parametrize(
    ("kind", "mode", "clear"), [("PNG", "P", 0), ("PNG", "L", 0), ("PNG", "RGB", (0, 0, 0)), ("GIF", "P", 0)]
)
def test_a_clear_colour_lowers_the_limit_of_pixels_as_an_alpha_channel_does(monkeypatch, kind, mode, clear):
    """It is mixed in copies of eight bytes a pixel."""
    monkeypatch.setattr(module, "MOST_PIXELS", 64 * 40)
    plain = pillow(Image.new(mode, (64, 40)), kind)
    data = pillow(Image.new(mode, (64, 40)), kind, transparency=clear)
    assert not decode_picture(plain, "p").any()
    for read in (decode_picture, module.check_pixels):
        with pytest.raises(InputError, match="more than 640"):
            read(data, "p")
    if kind == "PNG":  # behind the pixels, where it comes too late for the limit
        late = plain[:-12] + data[data.index(b"tRNS") - 4 : data.index(b"IDAT") - 4] + plain[-12:]
        assert not decode_picture(late, "p").any()


def test_a_damaged_exif_block_leaves_the_picture_as_it_is():
    data = encoded(smooth(), ".jpg")
    block = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\0" * 8
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    assert decode_picture(broken, "p.jpg").shape == (40, 64, 3)


def test_formats_that_nobody_asked_for_are_not_even_tried():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(InputError, match="cannot be decoded"):
        decode_picture(postscript, "p.png")


def test_phones_photos_with_the_package_that_reads_them(tmp_path):
    pytest.importorskip("pillow_heif")
    assert is_picture("IMG_1.HEIC")
    path = tmp_path / "p.heic"
    path.write_bytes(pillow(Image.fromarray(smooth()[..., ::-1]), "HEIF", quality=95))
    assert np.abs(read_picture(path).astype(int) - smooth()).mean() < 12


def test_a_phones_photo_under_another_name_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "reads_heif", lambda: False)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(InputError, match=r"a\.jpg is HEIC, whatever its name") as caught:
        read_picture(tmp_path / "a.jpg")
    assert "pip install pillow-heif" in caught.value.remedy


def test_what_is_a_picture_by_its_name(monkeypatch):
    monkeypatch.setattr(module, "reads_heif", lambda: False)
    assert is_picture("a.JPG")
    assert not is_picture("a.heic")
    assert not is_picture("a.txt")
