"""Files that are whole or not there: temporary file in the same folder, flush to disk, then rename.

A temporary file is locked by the process that writes it. One that nobody locks was left by a process that was killed;
whoever writes to the folder next removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shlex
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from edge_ran.errors import EnvironmentMissing, InputError, OutputExists, UsageError

if sys.platform != "win32":
    import fcntl

TEMPORARY_PREFIX = ".edge-ran-"
RECORDINGS = (".mp4", ".mov", ".mkv", ".avi")  # what a killed run recorded is looked at before it is removed
_FOLDER_PREFIX = "edge-ran-tmp-"  # and eight characters of tempfile's: nobody names a folder of theirs so
_NEW_FOLDER_PREFIX = f"{TEMPORARY_PREFIX}new-"
_YOUNG_S, _SETTLING_S = 600.0, 2.0
_swept: set[Path] = set()  # once is enough: this process leaves nothing


@contextlib.contextmanager
def atomic_path(target: Path, note: str = "", private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; when the block ends well it becomes ``target``, else it vanishes.

    The temporary name keeps the target's suffix, for writers that choose a format by it, and begins with ``note``, for
    whoever finds it when the writer was killed. ``private`` makes a file that only its owner can read.

    Raises:
        EnvironmentMissing: the disk is full or the folder cannot be written to; ``target`` is as it was.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent not in _swept:
            _swept.add(target.parent)
            sweep_temporaries(target.parent)
        prefix = f"{TEMPORARY_PREFIX}{note}-" if note else TEMPORARY_PREFIX
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=target.suffix, dir=target.parent)
        if sys.platform == "win32":
            os.close(handle)  # an open file cannot be replaced there
        else:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise cannot_write(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if not private:
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(handle)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; when the block ends well it takes its place, else it vanishes.

    Of a link to a folder, the folder is replaced and the link stays.

    Raises:
        EnvironmentMissing: the disk is full or the place cannot be written to; ``target`` is as it was.
    """
    place, handle = Path(os.path.realpath(target)), -1  # the parent of "." is not "."
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(place.parent)
        fresh = Path(tempfile.mkdtemp(prefix=_NEW_FOLDER_PREFIX, dir=place.parent))
        handle = _lock_folder(fresh)
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield fresh
        fresh.chmod(0o777 & ~_umask())
        _put_in_place(fresh, place)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def _put_in_place(fresh: Path, target: Path) -> None:
    """Rename ``fresh`` to ``target``. What was there is removed last: until then it can be put back."""
    if not os.path.lexists(target):
        os.replace(fresh, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=_NEW_FOLDER_PREFIX, dir=target.parent))
    old = aside / target.name
    try:
        os.replace(target, old)
        os.replace(fresh, target)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(target):
            os.replace(old, target)
        with contextlib.suppress(OSError):
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_bytes(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically. Raises EnvironmentMissing as ``atomic_path`` does."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` as UTF-8, atomically. Raises EnvironmentMissing as ``atomic_path`` does."""
    write_bytes(target, text.encode())


def read_bytes(source: Path, kind: str = "file") -> bytes:
    """Return the file's bytes; ``kind`` names it in the error line.

    Raises:
        InputError: it is missing, no regular file, empty or unreadable.
    """
    check_regular(source, kind)
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {kind} {source}: {error.strerror or error}", "check the path") from error
    if not data:
        raise InputError(f"{kind} {source} is empty", "make it again")
    return data


def remedy_of_path(source: Path | str) -> str:
    """What helps where nothing has that path: an address must be downloaded first."""
    scheme, is_address, rest = str(source).partition(":/")
    if is_address and scheme in ("http", "https"):
        address = f"{scheme}://{rest.lstrip('/')}"
        return f"download it first: curl -LO {shlex.quote(address)}"
    return "check the path"


def check_regular(source: Path | str, kind: str = "file") -> None:
    """Raise InputError for a pipe or a device, which would be waited for or read for ever, and for what is not there.

    Folders full of other people's files hold them, too, and links to them.
    """
    try:
        mode = os.stat(source).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {kind} {source}: {reason}", remedy_of_path(source)) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder says so itself when it is read
        raise InputError(f"{kind} {source} is a pipe or a device, not a file", "leave it out, or copy what it gives")


def refuse_existing(target: Path, force: bool) -> None:
    """Raise OutputExists when ``target`` is there and ``force`` is not given. Call it before the long work."""
    if Path(target).exists() and not force:
        raise OutputExists(f"{target} exists", "add --force to replace it, or choose another name")


def check_output(target: Path, force: bool, suffixes: tuple[str, ...] = (), source: str = "") -> None:
    """Make sure that ``target`` can be written. Call it before the long work.

    Args:
        target: the file that will be written.
        force: whether it may replace one that is there.
        suffixes: how its name may end, in lower case; empty: in any way.
        source: what the command reads.

    Raises:
        UsageError: its suffix is not one of these, or it is the source itself.
        OutputExists: it is there already, or is a folder.
        EnvironmentMissing: its folder cannot be written to.
    """
    target = Path(target)
    if suffixes and target.suffix.lower() not in suffixes:
        raise UsageError(f"cannot write {target}: its name does not end in {' or '.join(suffixes)}", "change the name")
    if target.is_dir():
        raise OutputExists(f"{target} is a folder", "give the name of a file")
    if target.name == "-" or (target.exists() and not target.is_file()):
        raise UsageError(f"cannot write {target}: it is no file", "give the name of a file")
    if target.exists() and os.path.exists(source) and target.samefile(source):
        raise UsageError(f"{target} is what is read, and would be replaced", "choose another name")
    refuse_existing(target, force)
    _check_place(target)


def check_output_folder(target: Path) -> None:
    """Make sure that files can be written to the folder ``target``, which need not exist, and beside it.

    Call it before the long work.

    Raises:
        OutputExists: a file has this name.
        EnvironmentMissing: it cannot be written to.
    """
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise OutputExists(f"{target} is a file", "give the name of a folder")
    _check_place(target / "new")


def check_replaced_folder(target: Path, needed: Iterable[Path] = ()) -> None:
    """Make sure that nothing that is needed lies in the folder ``target``, which will be replaced as a whole.

    Call it before the long work.

    Args:
        target: the folder, which need not exist.
        needed: files and folders that must stay, such as what the command reads.

    Raises:
        UsageError: one of them, or the folder that the command runs in, is ``target`` or lies in it.
    """
    if not Path(target).is_dir():
        return
    replaced = os.path.realpath(target)
    for path in needed:
        if Path(os.path.realpath(path)).is_relative_to(replaced):
            what = f"{path} is what is read, and would be removed with {target}, which is replaced"
            raise UsageError(what, "choose another --output")
    if Path(os.path.realpath(".")).is_relative_to(replaced):
        what = f"the folder that this command runs in would be removed with {target}, which is replaced"
        raise UsageError(what, "choose another --output, or type cd .. first")


def _check_place(target: Path) -> None:
    folder = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
    try:
        tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX).close()
    except OSError as error:
        raise cannot_write(target, error) from error


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed writers left in ``folder``, but for recordings and for what a living process writes."""
    _remove_abandoned(Path(folder).glob(f"{_NEW_FOLDER_PREFIX}{'?' * 8}"), _SETTLING_S)
    for leftover in abandoned(folder):
        if leftover.suffix.lower() not in RECORDINGS:
            with contextlib.suppress(OSError):
                leftover.unlink()


def abandoned(folder: Path) -> Iterator[Path]:
    """Yield the temporary files in ``folder`` whose writers live no more."""
    for leftover in sorted(Path(folder).glob(f"{TEMPORARY_PREFIX}*")):
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                yield leftover  # where one that is open cannot be removed
                continue
            if not stat.S_ISREG(leftover.lstat().st_mode):
                continue
            with open(leftover, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused where its writer lives
                yield leftover


def scratch_file() -> BinaryIO:
    """Return an open file without a name, for reading and writing; in memory where no folder can be written to.

    Raises:
        EnvironmentMissing: there is no place at all.
    """
    try:
        return cast(BinaryIO, tempfile.TemporaryFile(dir=_temporary_place()))
    except (OSError, EnvironmentMissing):
        if not hasattr(os, "memfd_create"):
            raise
        return open(os.memfd_create("edge-ran"), "w+b")


def _temporary_place() -> str:
    """The folder for temporary files: the system's, else the one in memory that read-only containers have.

    Raises:
        EnvironmentMissing: there is none.
    """
    try:
        return tempfile.gettempdir()
    except OSError as error:
        if os.access("/dev/shm", os.W_OK | os.X_OK):
            return "/dev/shm"
        what = "no folder for temporary files can be written to"
        raise EnvironmentMissing(what, "set TMPDIR to a folder that can be written to") from error


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A folder for temporary files, removed at the end of its ``with`` block, or by the next one of another process.

    It is locked while its owner lives; the folders of owners that were killed are found by that and by their age.
    It is made in the folder ``within``, for what may be large; None = where the system has its temporary files.

    Raises EnvironmentMissing where there is no place for it.
    """

    def __init__(self, within: Path | None = None) -> None:
        place = Path(within or _temporary_place())
        try:
            place.mkdir(parents=True, exist_ok=True)
            _sweep_folders(place)
            super().__init__(prefix=_FOLDER_PREFIX, dir=place)
        except OSError as error:
            raise cannot_write(place, error) from error
        self._handle = _lock_folder(Path(self.name))

    def cleanup(self) -> None:
        super().cleanup()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _sweep_folders(place: Path) -> None:
    """Remove the temporary folders that nobody locks."""
    if place not in _swept:
        _swept.add(place)
        _remove_abandoned(place.glob(f"{_FOLDER_PREFIX}{'?' * 8}"), _YOUNG_S)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other commands from writing to ``folder``, which is made, until the block ends or this process does.

    Where a system has no such locks, this does nothing.

    Raises:
        OutputExists: another command is writing there.
        EnvironmentMissing: there can be no such folder.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputExists(
                    f"another command is writing to {folder}", "wait until it ends, or choose another --output"
                ) from error
        yield
    finally:
        os.close(handle)


def _lock_folder(folder: Path) -> int:
    """Return a file descriptor that keeps the folder locked while it is open; -1 where there are no such locks."""
    if sys.platform == "win32":
        return -1
    handle = -1
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _remove_abandoned(folders: Iterable[Path], young_s: float) -> None:
    """Remove those of this user that nobody locks. The young may be about to be locked."""
    if sys.platform == "win32":
        return
    for folder in folders:
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            if time.time() - found.st_mtime < young_s:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused where its owner lives
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def home() -> Path:
    """Return this user's home folder. Raises EnvironmentMissing for a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError as error:
        remedy = "set HOME to a folder that can be written to"
        raise EnvironmentMissing("this user has no home folder", remedy) from error


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: BinaryIO) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def cannot_write(target: Path, error: OSError) -> EnvironmentMissing:
    """Return the error that says why ``target`` could not be written."""
    if error.errno == errno.ENOSPC:
        return EnvironmentMissing(f"no space left on the disk of {target}; nothing was written", "free some space")
    return EnvironmentMissing(f"cannot write {target}: {error.strerror or error}", "choose another place")
