"""Archives that lie: what is unpacked is bounded by what comes out, whatever their headers say."""

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import pytest

from edge_ran.errors import InputError
from edge_ran.zip_archive import unpack

MOST = 1 << 20


def packed(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def lying(size: int, claimed: int) -> bytes:
    """An archive of one entry of so many zeros, whose headers claim another size."""
    return packed({"a": bytes(size)}).replace(struct.pack("<I", size), struct.pack("<I", claimed))


def overlapping(count: int, size: int) -> bytes:
    """An archive of many entries that are all the same bytes."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflate.compress(bytes(size)) + deflate.flush()
    checksum = zlib.crc32(bytes(size))
    sizes = struct.pack("<III", checksum, len(data), size)
    body = b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes + struct.pack("<HH", 1, 0) + b"a" + data
    listed = b"".join(
        b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
        + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + bytes([97 + i])
        for i in range(count)
    )  # fmt: skip
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(listed), len(body), 0)
    return body + listed + end


def test_what_is_asked_for_comes_out() -> None:
    data = packed({"a": b"one", "b": b"two", "c": bytes(1 << 22)})
    assert unpack(io.BytesIO(data), ("a", "b", "absent"), MOST, "it") == {"a": b"one", "b": b"two"}
    assert unpack(io.BytesIO(lying(10, 1 << 31)), ("a",), MOST, "it") == {"a": bytes(10)}
    assert set(unpack(io.BytesIO(packed({"a": b"", "b": b"x"})), None, MOST, "it")) == {"a", "b"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: packed({"a": bytes(1 << 25)}),
        lambda: lying(1 << 25, 10),
        lambda: overlapping(20, 1 << 17),
        lambda: packed({"a": bytes(1 << 25)}, zipfile.ZIP_BZIP2),
        lambda: packed({"a": bytes(1 << 25)}, zipfile.ZIP_LZMA),
        lambda: packed({"a": b"x"})[:-10],
        lambda: packed({str(i): b"" for i in range(2000)}),
        lambda: b"",
        lambda: b"PK\x03\x04 nothing",
    ],
    ids=["large", "claims less", "overlapping", "bzip2", "lzma", "cut", "many", "empty", "no archive"],
)
def test_an_archive_that_lies_ends_in_one_line_and_little_memory(make: Callable[[], bytes]) -> None:
    data = make()
    tracemalloc.start()
    with pytest.raises(InputError) as error:
        unpack(io.BytesIO(data), None, MOST, "it")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 * MOST
    assert "\n" not in str(error.value)
