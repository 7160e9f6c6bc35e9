"""NumPy archives: read as NumPy reads them, and one line for whatever is wrong with them."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge_ran import npz
from edge_ran.errors import InputError


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue()


def archive(path: Path, member: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("x.npy", member)
    return path


def test_arrays_come_back(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", x=np.arange(12).reshape(3, 4), y=np.array(["a", "b"]))
        found = npz.read(tmp_path / "a.npz", ("x", "y", "z"))
        np.testing.assert_array_equal(found["x"], np.arange(12).reshape(3, 4))
        assert found["y"].tolist() == ["a", "b"]
        assert npz.names(tmp_path / "a.npz") == ("x", "y")


def test_what_unpacks_without_end_or_claims_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    tracemalloc.start()
    of_nothing = (header((1 << 40,), "<U0"), header((1 << 40, 0)))
    for member in (header((1 << 40,)), header((1 << 30,)) + bytes(1 << 24), header((-1, 4)), *of_nothing):
        with pytest.raises(InputError):
            npz.read(archive(path, member), ("x",))
    np.savez_compressed(path, x=np.zeros((300, 1024, 1024), np.uint8))
    assert path.stat().st_size < 1 << 20
    tracemalloc.reset_peak()
    with pytest.raises(InputError, match=r"unpacks to 0\.3 GB"):
        npz.read(path, ("x",))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 24


def of_text(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "member",
    [
        *(b"", b"no array", header((4,)), header((4,), "|O"), header((4,)) + bytes(8), b"\x93NUMPY\x09\x00"),
        *map(of_text, (b"{'descr': (", b"'''", b"  x\n y", b"(" * 9000, b"-" * 60000 + b"1")),
    ],
)
def test_a_damaged_member_is_one_line(tmp_path: Path, member: bytes) -> None:
    with pytest.raises(InputError) as error:
        npz.read(archive(tmp_path / "a.npz", member), ("x",))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_called_so(tmp_path: Path) -> None:
    for read in (npz.names, lambda path: npz.read(path, ("x",))):
        with pytest.raises(InputError, match="No such file"):
            read(tmp_path / "typo.npz")


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", header((64,)) + bytes(256), zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="CRC"):
        npz.read(path, ("x",))
