from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edge_ran import cli, files
from edge_ran.errors import EnvironmentMissing, InputError, OutputExists, UsageError


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path, force):
    (tmp_path / "stdout").symlink_to("/dev/null")
    for target in (tmp_path / "stdout", tmp_path / "-"):
        with pytest.raises(UsageError, match="it is no file"):
            files.check_output(target, force)
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UsageError, match="is what is read"):
        files.check_output(tmp_path / "clip.mp4", force, source=str(tmp_path / "." / "clip.mp4"))


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path):
    target = tmp_path / "deep" / "card.json"
    files.write_text(target, "Größe")
    files.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["card.json"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path):
    target = tmp_path / "model.tflite"
    target.write_bytes(b"old")

    def fail_half_way():
        with files.atomic_path(target) as temporary:
            assert temporary.suffix == ".tflite"
            temporary.write_bytes(b"half")
            raise RuntimeError("the converter gave up")

    with pytest.raises(RuntimeError, match="gave up"):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_sweep_removes_the_rest(tmp_path: Path):
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    script = f"""
import os, signal
from pathlib import Path
from edge_ran.files import atomic_path
with atomic_path(Path({str(target)!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert target.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2
    files.sweep_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["model.bin"]


def test_files_are_readable_as_the_umask_says(tmp_path: Path):
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "f", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_said(tmp_path: Path):
    target = tmp_path / "out"

    def fill():
        with files.atomic_path(target), open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(EnvironmentMissing, match="no space left") as caught:
        fill()
    assert caught.value.exit_code == 3
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way_is_said(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(EnvironmentMissing, match="cannot write"):
        files.write_bytes(tmp_path / "file" / "inside", b"y")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(EnvironmentMissing, match="cannot write"):
        files.write_bytes(tmp_path / "folder", b"y")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize(
    ("name", "what"), [("missing", "No such file"), ("folder", "directory"), ("empty", "is empty")]
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, what: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match=what) as caught:
        files.read_bytes(tmp_path / name, "picture")
    assert "picture" in str(caught.value)


def test_an_output_that_exists_needs_force(tmp_path: Path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputExists) as caught:
        files.refuse_existing(tmp_path / "out", force=False)
    assert "--force" in caught.value.remedy
    files.refuse_existing(tmp_path / "out", force=True)
    files.refuse_existing(tmp_path / "new", force=False)


def test_sha256_of_every_python_version(tmp_path: Path):
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "f").write_bytes(data)
    assert files.sha256(tmp_path / "f") == hashlib.sha256(data).hexdigest()
    with open(tmp_path / "f", "rb") as file:
        assert files._sha256(file) == hashlib.sha256(data).hexdigest()


HOLD = """
import sys, time
from pathlib import Path
from edge_ran import cli, files
with files.atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX's")
def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a.json")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        files.sweep_temporaries(tmp_path)
        assert len(list(tmp_path.glob(".edge-ran-*.json"))) == 1
        writer.kill()
    assert len(list(tmp_path.glob(".edge-ran-*.json"))) == 1
    files.write_text(tmp_path / "b.json", "whole")  # whoever writes there next sweeps
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_temporary_folder_can_be_made_where_there_is_room(tmp_path: Path) -> None:
    with files.TemporaryFolder(tmp_path / "new") as made:
        assert Path(made).parent == tmp_path / "new"
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentMissing, match="cannot write"):
        files.TemporaryFolder(tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX's")
def test_temporary_folders_of_killed_processes_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "_swept", set())
    script = "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]; from edge_ran import files\n"
    killed = script + "kept = files.TemporaryFolder(); open(kept.name + '/x', 'w'); os.kill(os.getpid(), 9)"
    living = script + "kept = files.TemporaryFolder(); print('ready', flush=True); sys.stdin.read()"
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)])
    (abandoned,) = tmp_path.glob("edge-ran-*")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", living, str(tmp_path)], stdin=pipe, stdout=pipe) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        (held,) = set(tmp_path.glob("edge-ran-*")) - {abandoned}
        others = tmp_path / "edge-ran-tmp-project-of-mine"  # a person's
        others.mkdir()
        for folder in (abandoned, held, others):
            os.utime(folder, (1, 1))
        with files.TemporaryFolder() as mine:
            assert not abandoned.exists()
            assert held.is_dir()
            assert others.is_dir()
            assert Path(mine).is_dir()
        assert not Path(mine).exists()
        owner.communicate(b"")


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX's")
def test_a_new_folder_is_whole_or_absent_and_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "site"
    hold = "from edge_ran import files; import os, sys, pathlib\n"
    hold += "with files.atomic_folder(pathlib.Path(sys.argv[1])) as fresh:\n    (fresh / 'x').touch(); "
    killed, living = hold + "os.kill(os.getpid(), 9)", hold + "print('ready', flush=True); sys.stdin.read()"
    subprocess.run([sys.executable, "-c", killed, str(target)])
    (abandoned,) = tmp_path.iterdir()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", living, str(target)], stdin=pipe, stdout=pipe) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        (held,) = set(tmp_path.iterdir()) - {abandoned}
        for folder in (abandoned, held):
            os.utime(folder, (1, 1))
        with files.atomic_folder(target) as fresh:
            assert not abandoned.exists()
            assert held.is_dir()
            (fresh / "mine").touch()
            assert not target.exists()
        assert [path.name for path in target.iterdir()] == ["mine"]
        with pytest.raises(ValueError, match="mine"), files.atomic_folder(target) as fresh:
            raise ValueError("a fault of mine")
        assert [path.name for path in target.iterdir()] == ["mine"]
        owner.communicate(b"")
    assert [path.name for path in target.iterdir()] == ["x"]  # the last one stays
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert target.stat().st_mode & 0o777 == 0o777 & ~files._umask()


@pytest.mark.parametrize("name", [".", "folder/.", "link"])
def test_a_folder_is_replaced_by_any_of_its_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder if name == "." else tmp_path)
    with files.atomic_folder(Path(name)) as fresh:
        assert fresh.parent == tmp_path
        (fresh / "new").touch()
    assert os.listdir(folder) == ["new"]
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]


def test_the_old_folder_is_there_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    replace, made = os.replace, list[Path]()

    def replace_or_fail(source: Path, target: Path) -> None:
        if source == made[0]:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    def write() -> None:
        with files.atomic_folder(folder) as fresh:
            made.append(fresh)

    monkeypatch.setattr(os, "replace", replace_or_fail)
    with pytest.raises(EnvironmentMissing, match="Permission denied"):
        write()
    assert os.listdir(folder) == ["old"]
    assert os.listdir(tmp_path) == ["folder"]


def test_what_is_needed_is_not_removed_with_a_folder_that_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    files.check_replaced_folder(folder, [folder / "in it"])  # it is not there
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder / "deep")
    files.check_replaced_folder(folder, [tmp_path, tmp_path / "folder two"])
    for needed in (folder, folder / "deep", tmp_path / "link", folder / ".." / "folder"):
        with pytest.raises(UsageError, match="is what is read"):
            files.check_replaced_folder(folder, [needed])
    for here in (folder, folder / "deep"):
        monkeypatch.chdir(here)
        with pytest.raises(UsageError, match="that this command runs in"):
            files.check_replaced_folder(folder)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files.check_output_folder(tmp_path / "new" / "newer")
    files.check_output_folder(tmp_path)
    with pytest.raises(OutputExists, match="is a file"):
        files.check_output_folder(tmp_path / "file")
    with pytest.raises(EnvironmentMissing, match="cannot write"):
        files.check_output_folder(tmp_path / "file" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without a home, in which nothing can be written."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nonexistent"])
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: not mode & os.W_OK and may(path, mode, **how))
    monkeypatch.setattr(Path, "home", homeless)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/nonexistent")


@pytest.mark.prompt  # TensorFlow has not run in that process, so that a first load can be a fork, without a folder
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory here")
def test_where_nothing_can_be_written_networks_run_and_the_rest_is_one_line(
    labelled_model, pictures: Path, nowhere: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with files.scratch_file() as file:
        file.write(b"kept")
        file.seek(0)
        assert file.read() == b"kept"
    with pytest.raises(EnvironmentMissing, match="no folder for temporary files"):
        files.TemporaryFolder()
    with pytest.raises(EnvironmentMissing, match="no home"):
        files.home()
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)  # as on a device
    model = str(labelled_model("int8"))
    ends = {
        f"run {model} --camera {pictures / 'red'} --headless": (0, ""),
        f"evaluate {model} {pictures}": (0, ""),
        f"benchmark {model} --cpu --num-runs 3 --min-secs 0": (0, ""),
        f"export {model} --web -o {pictures / 'site'}": (3, "no home folder"),
        "status": (3, "no home folder"),
    }
    for line, (code, words) in ends.items():
        monkeypatch.setattr(sys, "argv", ["edge-ran", *line.split()])
        with pytest.raises(SystemExit) as end:
            cli.main()
        err = capsys.readouterr().err
        assert (end.value.code, words in err) == (code, True), (line, err)


def test_a_container_whose_only_writable_place_is_in_memory(
    nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm")
    monkeypatch.setattr(os, "access", lambda path, mode, **_: path == "/dev/shm")
    with files.TemporaryFolder() as folder:
        assert Path(folder).parent == Path("/dev/shm")
    assert not Path(folder).exists()
