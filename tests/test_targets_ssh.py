"""Devices over a real ssh: an OpenSSH server on a loopback port, and this Python as the board's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jsonschema
import pytest
import typer
from loopback import wait_for, write_clip
from ports import free_port
from schemas import valid
from sshd import Sshd

from edge_ran import files, records, targets
from edge_ran.catalogue import DeviceSpec
from edge_ran.cli import main, run_elsewhere
from edge_ran.errors import EnvironmentMissing
from edge_ran.targets.ssh import connection
from edge_ran.targets.ssh import target as ssh_target
from edge_ran.targets.ssh.session import Session

QUICK = ("--num-runs", "40", "--min-secs", "0.1", "--warmup-runs", "1")
LONG = ("--num-runs", "1", "--min-secs", "60")

pytestmark = [
    pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd; Debian: apt install openssh-server"),
    pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh; Debian: apt install openssh-client"),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted in /proc"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


@pytest.fixture
def board(sshd: Sshd, tmp_path: Path) -> Callable[..., Path]:
    """A function: write the description of a device behind the sshd, with other keys than the usual where given."""

    def write(name: str = "board", **keys: object) -> Path:
        spec = {
            "summary": "loopback",
            "accelerator": "cpu",
            "converter": "int8",
            "target": f"ssh://127.0.0.1:{sshd.port}",
            "python": sys.executable,
            **keys,
        }
        path = tmp_path / f"{name}.toml"
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in spec.items()))
        return path

    return write


class Done(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def edge_ran(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Done]:
    """A function that runs a command line to its end, in this process: the other side has one of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, config: Path | None = None) -> Done:
        monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(config or sshd.config))
        monkeypatch.setattr(sys, "argv", ["edge-ran", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run


def _words(*words: object) -> list[str]:
    return [sys.executable, "-m", "edge_ran", *map(str, words)]


def _environment(sshd: Sshd) -> dict[str, str]:
    return {**os.environ, "EDGE_RAN_SSH_CONFIG": str(sshd.config)}


def _keys(value: Any) -> Any:
    """The shape of a record: its keys, all the way down."""
    return {key: _keys(one) for key, one in value.items()} if isinstance(value, dict) else None


def _is_one_error(done: Done, what: str, code: int = 3) -> bool:
    """Two lines at the end of stderr, and the exit code."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    *_, told, remedy = done.stderr.splitlines()
    assert told.startswith("edge-ran: "), done.stderr
    assert what in told, done.stderr
    return remedy.startswith("  ") and len(remedy) > 4


class Started:
    """A command that goes on, and what it says on stderr."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.said = ""
        self.process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def wait_for(self, words: str, seconds: float = 240.0) -> None:
        """Wait until it says that on stderr; fail at once, with what it said, where it has ended instead."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: words in self.said or self.process.poll() is not None, seconds)
        if self.process.poll() is not None:
            self._reader.join(10)
        ended = "goes on" if self.process.poll() is None else f"ended with {self.process.returncode}"
        assert words in self.said, f"it {ended} and did not say {words!r}, but:\n{self.said}"

    def end(self) -> tuple[int, str]:
        with self.process as process:
            assert process.stdout is not None
            out = "" if process.stdout.closed else process.stdout.read()
            code = process.wait(30)
            self._reader.join(10)
        return code, out


def test_a_benchmark_there_is_that_of_here(edge_ran, board, sshd: Sshd, test_models: Path, tmp_path: Path):
    model, mine = test_models / "int8.tflite", board()
    there = edge_ran(
        "benchmark", model, "--device", mine, *QUICK, "--json", "--csv", "a.csv", "--result-json", "a.json"
    )
    assert there.returncode == 0, there.stderr
    here = edge_ran("benchmark", model, "--device", "local", "--cpu", *QUICK, "--json")
    first, local = json.loads(there.stdout), json.loads(here.stdout)
    assert _keys(first) == _keys(local)
    for key in ("model", "input", "name", "runtime", "delegation", "schema_version", "tool"):
        assert first[key] == local[key]
    assert (first["device"], local["device"]) == ("board", "local")
    assert first["accelerator"]["requested"] == "cpu"  # the TOML's word
    assert len(first["samples_ms"]) == first["latency"]["num_runs"] >= 40
    assert "sending int8.tflite" in there.stderr
    assert "measuring whole frames" in there.stderr  # told as it happens there
    assert json.loads((tmp_path / "a.json").read_text()) == first
    assert "board" in (tmp_path / "a.csv").read_text()
    assert sshd.leftovers() == []

    again = edge_ran("benchmark", model, "--device", mine, *QUICK, "--baseline", "a.json")
    assert again.returncode == 0, again.stderr
    assert "sending" not in again.stderr
    assert "ratio" in again.stdout


def test_a_retrained_network_of_the_same_size_is_sent(edge_ran, board, labelled_model, tmp_path: Path):
    found = []
    for accuracy in (0.7, 0.8):
        shutil.copy(labelled_model("int8", top1=accuracy), tmp_path / "net.tflite")
        done = edge_ran("benchmark", "net.tflite", "--device", board(), *QUICK, "--json")
        assert "sending net.tflite" in done.stderr
        found.append(json.loads(done.stdout)["model"])
    assert found[0]["size_bytes"] == found[1]["size_bytes"]
    assert found[0]["sha256"] != found[1]["sha256"]


def test_several_devices_make_one_table_and_one_that_is_off_costs_nothing(edge_ran, board, test_models, tmp_path):
    words = ["benchmark", test_models / "int8.tflite", *QUICK, "--device", "local", "-d", board()]
    off = board("off", target="ssh://127.0.0.1:1")
    done = edge_ran(*words, "-d", off, "--result-json", "r.json")
    assert done.returncode == 3
    assert "edge-ran: off: 127.0.0.1 refuses connections" in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["local", "board"]
    record = json.loads((tmp_path / "r.json").read_text())
    assert [one["device"] for one in record["models"]] == ["local", "board"]
    assert all(len(one["samples_ms"]) >= 40 for one in record["models"])
    (ratio,) = record["ratios"]
    assert ratio["baseline"] == "local"
    medians = [one["latency"]["median_ms"] for one in record["models"]]
    assert ratio["ratio"] == pytest.approx(medians[1] / medians[0])
    assert [one["device"] for one in record["failed"]] == ["off"]


def test_profile_and_sustained_come_back(edge_ran, board, test_models: Path):
    words = (test_models / "int8.tflite", "--device", board(), "--json")
    profile = json.loads(edge_ran("profile", *words).stdout)
    assert profile["operators"]
    assert profile["whole_ms"] > 0
    sustained = json.loads(edge_ran("sustain", *words, "--duration", "1s").stdout)
    assert len(sustained["windows"]) >= 4


def test_a_sweep_takes_the_other_precisions_along(edge_ran, board, test_models: Path, tmp_path: Path):
    shutil.copy(test_models / "int8.tflite", tmp_path / "int8.tflite")
    shutil.copy(test_models / "float32.tflite", tmp_path / "fp32.tflite")
    words = ("sweep", "int8.tflite", "--precision", "int8,fp32", "--threads", "1", "--device", board())
    refused = edge_ran(*words, "--accuracy-on", "x.csv")
    assert _is_one_error(refused, "manifest", 2)
    done = edge_ran(*words, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["table"]] == ["int8 cpu 1T", "fp32 cpu 1T"]


def test_pictures_go_along_as_many_as_are_used_and_a_spoilt_file_is_sent_again(
    edge_ran, board, sshd: Sshd, test_models: Path, pictures: Path
):
    spoilt = sshd.cache / "pushed" / files.sha256(test_models / "int8.tflite")
    spoilt.parent.mkdir(parents=True, exist_ok=True)
    spoilt.write_bytes(b"not what its name says")
    done = edge_ran(
        "benchmark", test_models / "int8.tflite", "--device", board(), *QUICK, "--images", pictures, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["input"] == "16 pictures"
    assert "sending 16 files of pictures" in done.stderr
    assert "sending int8.tflite" in done.stderr


def test_verify_there_and_its_words_of_paths_here(edge_ran, board, test_models: Path):
    model = test_models / "int8.tflite"
    there = edge_ran("verify", model, "--device", board(), "--count", "3", "--json")
    here = edge_ran("verify", model, "--count", "3", "--json")
    assert (there.returncode, here.returncode) == (0, 0), there.stderr
    first, second = json.loads(there.stdout), json.loads(here.stdout)
    assert first["model"] == second["model"] == str(model)
    assert [c["accelerator"] for c in first["checks"]] == [c["accelerator"] for c in second["checks"]]
    broken = edge_ran("verify", model.with_name("golden.json"), "--device", board())
    assert _is_one_error(broken, str(model.with_name("golden.json")), 2)


def test_run_streams_what_it_sees_and_brings_its_files_back(edge_ran, board, sshd, test_models, tmp_path):
    write_clip(tmp_path / "clip.avi", 8)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    done = edge_ran(
        "run", test_models / "int8.tflite", "--device", board(), "--camera", "clip.avi", "--labels", "labels.txt",
        "--json", "--no-realtime", "--save", "out.avi", "--summary", "sum.json", "--record", "kept", "--label", "seen",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert [frame["index"] for frame in frames] == list(range(8))
    assert {frame["label"] for frame in frames} <= {"red", "green", "blue"}
    assert "8 frames captured = 8 classified" in done.stderr
    assert json.loads((tmp_path / "sum.json").read_text())["classified"] == 8
    assert (tmp_path / "out.avi").stat().st_size > 1000
    assert len(list((tmp_path / "kept" / "seen").rglob("*.jpg"))) == 8
    assert sshd.leftovers() == []
    assert _is_one_error(edge_ran("run", test_models / "int8.tflite", "--device", board(), "--show"), "--show", 2)


def test_a_description_of_a_device_sends_no_file_of_this_machine(edge_ran, board, sshd, test_models, tmp_path):
    """Others write such files: what one names is the device's, though something of that name is here."""
    secret = tmp_path / "secret"
    secret.mkdir()
    write_clip(secret / "clip.avi", 4)
    for camera in (secret, secret / "clip.avi", "secret"):
        done = edge_ran("run", test_models / "int8.tflite", "--device", board(camera=str(camera)), "--max-frames", "2")
        assert "clip.avi" not in done.stderr.replace(str(secret / "clip.avi"), ""), done.stderr
        assert "files of secret" not in done.stderr
    kept = [file.read_bytes() for file in (sshd.cache / "pushed").rglob("*") if file.is_file()]
    assert (secret / "clip.avi").read_bytes() not in kept


def test_run_there_is_live_and_ctrl_c_ends_it_in_good_order(board, sshd: Sshd, test_models: Path, tmp_path: Path):
    write_clip(tmp_path / "clip.avi", 300, fps=1)  # five minutes, for two cores may have much to do
    words = _words("run", test_models / "int8.tflite", "--device", board(), "--camera", tmp_path / "clip.avi", "--json")
    started = Started(words, _environment(sshd))
    assert started.process.stdout is not None
    first = json.loads(started.process.stdout.readline())
    assert first["index"] < 100  # the clip is not over
    assert any("edge_ran" in one for one in sshd.leftovers())
    assert not any("clip.avi" in one for one in sshd.leftovers())  # a camera's address may hold a password
    started.process.send_signal(signal.SIGINT)
    code, _ = started.end()
    assert code == 130
    assert re.search(r"\d+ frames? captured", started.said)  # its summary, from there
    assert sshd.leftovers() == []


@pytest.mark.parametrize("how", ["SIGTERM", "reader"])
def test_what_a_run_there_has_written_comes_back_however_it_is_ended(how: str, board, sshd, test_models, tmp_path):
    write_clip(tmp_path / "clip.avi", 300, fps=1)  # five minutes, for two cores may have much to do
    words = ["run", test_models / "int8.tflite", "--device", board(), "--camera", tmp_path / "clip.avi", "--json"]
    started = Started(_words(*words, "--summary", tmp_path / "sum.json"), _environment(sshd))
    assert started.process.stdout is not None
    started.process.stdout.readline()
    if how == "reader":
        started.process.stdout.close()
    else:
        started.process.send_signal(getattr(signal, how))
    assert started.end()[0] == 0
    assert "Traceback" not in started.said
    assert json.loads((tmp_path / "sum.json").read_text())["classified"] > 0
    assert sshd.leftovers() == []


def test_what_comes_back_waits_on_the_disk_that_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made, make = [], tempfile.TemporaryFile

    def note(*, dir: Path) -> Any:
        made.append(dir)
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    one = Session(DeviceSpec("b", "b", "cpu", "int8", target="ssh://b"), lambda line: None)
    monkeypatch.setattr(one, "request", lambda *words: {})
    one.fetch(PurePosixPath("/there/sum.json"), tmp_path / "new" / "sum.json")
    assert made == [tmp_path]


def test_the_page_that_a_device_serves_is_seen_here(edge_ran, board, sshd: Sshd, test_models: Path, tmp_path: Path):
    write_clip(tmp_path / "clip.avi", 300, fps=1)  # five minutes, for two cores may have much to do
    port = free_port("127.0.0.1", "127.0.0.2")
    words = ["run", test_models / "int8.tflite", "--device", board(), "--camera", tmp_path / "clip.avi"]
    here = f"127.0.0.2:{port}"  # the board has the same port of 127.0.0.1 for itself
    started = Started(_words(*words, "--web", here), _environment(sshd))
    started.wait_for(f"watch at http://{here}/")
    asked = urllib.request.Request(f"http://{here}/", headers={"Host": f"localhost:{port}"})
    with urllib.request.urlopen(asked, timeout=10) as page:
        assert b"<html" in page.read()
    taken = edge_ran(*words, "--web", here)
    assert _is_one_error(taken, "in use here")
    started.process.send_signal(signal.SIGINT)
    assert started.end()[0] == 130
    assert _is_one_error(edge_ran(*words, "--web", "0.0.0.0:8080"), "for this machine only", 2)


@pytest.mark.parametrize("how", ["cut", "ctrl-c", "killed"])
def test_the_end_of_the_connection_ends_everything_there(how: str, board, sshd: Sshd, test_models: Path):
    words = _words("benchmark", test_models / "int8.tflite", "--device", board(), *LONG)
    started = Started(words, _environment(sshd))
    started.wait_for("warming up and measuring")
    assert len(sshd.leftovers()) >= 2  # a folder, and processes in it
    if how == "cut":
        assert sshd.cut() > 0
    else:
        started.process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)
    code, out = started.end()
    assert out == ""
    assert "Traceback" not in started.said
    assert code == {"cut": 3, "ctrl-c": 130, "killed": -9}[how]
    if how == "cut":
        *_, what, remedy = started.said.splitlines()
        assert what == "edge-ran: the connection to board was lost; what ran there is ended"
        assert remedy.startswith("  try again")
    wait_for(lambda: not sshd.leftovers(), 10)


def test_a_full_disk_there_is_one_line_and_nothing_half_written_stays(edge_ran, board, test_models, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nXDG_CACHE_HOME={disk} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        done = edge_ran("benchmark", test_models / "int8.tflite", "--device", board(python=str(python)), *QUICK)
        assert _is_one_error(done, "no space left on board")
        left = [p for p in disk.rglob("*") if p.is_file()]
        assert [p.parent.name for p in left] in ([], ["pushed"])  # the network alone came in, whole
        assert all(p.read_bytes() == (test_models / "int8.tflite").read_bytes() for p in left)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_what_is_missing_there_is_told_with_the_remedy(edge_ran, board, sshd: Sshd, test_models: Path, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPIP_NO_INDEX=1 exec {tmp_path}/bare/bin/python "$@"\n')
    python.chmod(0o755)
    bare = board("bare", python=str(python))
    done = edge_ran("benchmark", test_models / "int8.tflite", "--device", bare)
    assert _is_one_error(done, "bare lacks numpy, ")
    assert "ai-edge-litert" in done.stderr
    assert "--install" in done.stderr
    (told,) = json.loads(edge_ran("devices", bare, "--json").stdout)["devices"]
    assert told["probe"]["answers"] is True
    assert "numpy" in told["probe"]["reason"]

    failed = edge_ran("benchmark", test_models / "int8.tflite", "--device", bare, "--install")
    assert _is_one_error(failed, "pip could not install")
    assert not (sshd.cache / "environment").exists()
    assert sshd.leftovers() == []


@pytest.mark.parametrize(
    ("keys", "config", "what"),
    [
        ({"python": "/no/such/python3"}, (), "there is no /no/such/python3"),
        ({"python": "false"}, (), "ssh ended with status 1"),
        ({"target": "ssh://127.0.0.1:1"}, (), "refuses connections"),
        ({"target": "ssh://nobody.invalid"}, (), "no host is called nobody.invalid"),
        ({}, ("stranger", "known"), "takes none of our keys"),
        ({}, ("key", "nobody-known"), "host key of 127.0.0.1 is not known"),
    ],
)
def test_no_way_there_is_one_line(keys, config, what, edge_ran, board, sshd: Sshd, test_models: Path):
    written = sshd.client_config("other", *config) if config else None
    done = edge_ran("benchmark", test_models / "int8.tflite", "--device", board(**keys), config=written)
    assert _is_one_error(done, what)
    assert done.stderr.count("\n") == 2


def test_devices_tells_what_answers(edge_ran, board, sshd: Sshd):
    (told,) = json.loads(edge_ran("devices", board(), "--json").stdout)["devices"]
    probe = told["probe"]
    assert (probe["answers"], probe["reason"]) == (True, "")
    assert probe["python"] == f"Python {sys.version.split()[0]}"
    assert probe["runtime"].split()[0] in ("litert", "tflite-runtime")
    begun = time.monotonic()
    silent = board("silent", target="ssh://192.0.2.1")  # an address that is nobody's
    done = edge_ran("devices", silent, "--timeout", "1", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["devices"][0]["probe"]["answers"] is False
    assert time.monotonic() - begun < 15
    hidden = edge_ran("devices", board(camera="rtsp://admin:hunter2@10.0.0.9/x?pwd=hunter2"), "--no-probe", "--json")
    record = json.loads(hidden.stdout)
    jsonschema.validate(record, records.schema(targets.DeviceList))
    assert record["devices"][0]["probe"] is None
    assert record["devices"][0]["camera"].startswith("rtsp://10.0.0.9/")
    assert "hunter2" not in hidden.stdout + hidden.stderr


def test_what_a_power_cut_left_is_swept_and_clean_removes_what_is_kept(edge_ran, board, sshd: Sshd, test_models: Path):
    dead = sshd.cache / "work" / "dead"
    dead.mkdir(parents=True, exist_ok=True)
    (dead / "partial").write_bytes(b"half")
    assert edge_ran("benchmark", test_models / "int8.tflite", "--device", board(), *QUICK).returncode == 0
    assert sshd.leftovers() == []
    assert list((sshd.cache / "pushed").iterdir())
    done = edge_ran("devices", board(), "--clean", "--json")
    assert valid("devices-clean", done.stdout)["freed_bytes"] > 100_000
    assert not (sshd.cache / "pushed").exists()
    assert _is_one_error(edge_ran("devices", "--clean"), "--clean needs", 2)


def test_an_answer_that_never_ends_is_not_kept(board, sshd: Sshd, test_models: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(sshd.config))
    monkeypatch.setattr(ssh_target, "LONGEST_ANSWER", 1 << 20)
    liar = tmp_path / "liar"
    lie = "for _ in range(100): self.wire.send(b'O', b'x' * (1 << 16))"
    liar.write_text(LIAR.format(python=sys.executable, what="run", lie=lie))
    liar.chmod(0o755)
    spec = targets.resolve(str(board(python=str(liar))))
    order = targets.Order("benchmark", (test_models / "int8.tflite",))
    with targets.open_target(spec) as opened, pytest.raises(EnvironmentMissing, match="more than any report holds"):
        opened.answer(order)


STOPPED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN if {is_deaf} else lambda *words: time.sleep(0.5) or sys.exit(130))
open("out/summary/sum.json", "w").write("whole")
print("ready", flush=True)
while True: time.sleep(0.01); print("more", flush=True)
"""


@pytest.mark.parametrize("how", ["slow", "deaf, and the reader has enough", "deaf, and Ctrl-C"])
def test_a_run_that_ends_late_is_waited_for_and_what_is_lost_is_told(
    how, board, sshd: Sshd, test_models, tmp_path: Path, monkeypatch, capsys
):
    is_deaf, by_user = how.startswith("deaf"), how.endswith("Ctrl-C")
    liar, summary = tmp_path / "liar", tmp_path / "sum.json"
    program = STOPPED.format(is_deaf=is_deaf)
    lie = f"""
    import os
    os.makedirs(self.work / "out" / "summary")
    return {{"code": self.execute([sys.executable, "-c", {program!r}], {{}})}}
    """
    liar.write_text(LIAR.format(python=sys.executable, what="run", lie=lie.strip()))
    liar.chmod(0o755)

    def interrupt(line: str) -> bool:
        if by_user:
            monkeypatch.setattr(run_elsewhere, "print_line", lambda line: True)
            raise KeyboardInterrupt
        return False

    monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(sshd.config))
    monkeypatch.setattr(connection, "STOP_S", 0.2)
    monkeypatch.setattr(ssh_target, "FINISH_S", 0.2 if is_deaf else 60.0)
    monkeypatch.setattr(run_elsewhere, "print_line", interrupt)
    spec, said = targets.resolve(str(board(python=str(liar)))), list[str]()
    order = targets.Order("run", (test_models / "int8.tflite",), {"summary": targets.Result(summary)})
    ends = KeyboardInterrupt if by_user else EnvironmentMissing if is_deaf else typer.Exit
    with targets.open_target(spec, said.append) as opened, pytest.raises(ends) as end:
        run_elsewhere.follow(opened, order)
    assert said[-1].startswith("edge-ran: board has not ended yet; waiting up to ")
    assert summary.exists() is not is_deaf
    lost = f"board was left before it ended: {summary} did not come here" if is_deaf else ""
    assert lost in (capsys.readouterr().err if by_user else str(end.value))


# A board that lies: this program takes the place of Python there, and changes one thing of what it is sent.
LIAR = """#!{python}
import re, sys
source = sys.stdin.buffer.read(int(re.search(r"read\\((\\d+)\\)", sys.argv[-1])[1]))
names = {{"__name__": "liar"}}
exec(compile(source, "liar", "exec"), names)
Agent = names["Agent"]
def lie(self, **request):
    {lie}
setattr(Agent, "do_{what}", lie)
names["main"]()
"""
ESCAPES = "\\x1b]0;owned\\x07\\x1b[2J"


@pytest.mark.parametrize(
    ("what", "lie", "told"),
    [
        ("run", 'self.wire.send(b"O", b"no record"); return {"code": 0}', "not JSON"),
        ("run", 'self.wire.send(b"O", b"{}"); return {"code": 0}', "an answer that cannot be used"),
        ("run", 'self.wire.send(b"O", b\'{"models": 3}\'); return {"code": 0}', "an answer that cannot be used"),
        ("run", 'self.wire.send(b"O", b"[" * 200000); return {"code": 0}', "not JSON"),
        ("run", f'self.wire.send(b"E", b"{ESCAPES}oh\\n"); return {{"code": 77}}', "status 77 there: oh"),
        ("run", 'return {"code": "no number"}', "status no number"),
        ("run", 'self.wire.send(b"A", b"\\xff\\xfe"); return {}', "an invalid answer"),
        ("run", 'import os; os.write(1, b"\\x7f" * 100); return {}', "was lost"),
        ("look", f'return {{"missing": ["{ESCAPES}x"], "system": 3}}', "an invalid answer"),
        ("have", 'return {"missing": 3}', "an invalid answer"),
        ("open", "return {}", "an invalid answer"),
        ("look", 'import os; os.write(2, b"dying\\n"); os._exit(255)', "was lost"),
    ],
)
def test_a_board_that_lies_is_one_clean_line(what, lie, told, edge_ran, board, test_models: Path, tmp_path: Path):
    liar = tmp_path / "liar"
    liar.write_text(LIAR.format(python=sys.executable, what=what, lie=lie))
    liar.chmod(0o755)
    done = edge_ran("benchmark", test_models / "int8.tflite", "--device", board(python=str(liar)), *QUICK)
    assert _is_one_error(done, told)
    assert done.stdout == ""
    assert "\x1b" not in done.stderr


def test_an_archive_that_leads_elsewhere_stays_where_it_belongs(edge_ran, board, test_models: Path, tmp_path: Path):
    lie = """
    import io, tarfile
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("../out", "/tmp/edge-ran-out", "a/../../out", ".bashrc", "a.py", "a/.ssh/x.jpg", "good.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        sparse = tarfile.TarInfo("GNUSparseFile.0/big.jpg")
        sparse.size = 512
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "big.jpg",
                              "GNU.sparse.realsize": str(1 << 31)}
        archive.addfile(sparse, io.BytesIO(b"0\\n".ljust(512, b"\\0")))
    self.wire.send(b"D", file.getvalue())
    return {}
    """
    liar = tmp_path / "liar"
    liar.write_text(LIAR.format(python=sys.executable, what="fetch", lie=lie.strip()))
    liar.chmod(0o755)
    write_clip(tmp_path / "clip.avi", 3)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    done = edge_ran(
        "run", test_models / "int8.tflite", "--device", board(python=str(liar)), "--camera", "clip.avi", "--labels",
        "labels.txt", "--record", "kept",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["good.jpg"]
    assert not (tmp_path / "out").exists()
    assert not Path("/tmp/edge-ran-out").exists()


def test_a_board_that_sends_without_end_is_left(edge_ran, board, test_models: Path, tmp_path: Path, monkeypatch):
    from edge_ran.targets.ssh import session

    monkeypatch.setattr(session, "MOST_FETCHED_BYTES", 1 << 22)
    liar = tmp_path / "liar"
    lie = 'while True: self.wire.send(b"D", bytes(1 << 20))'
    liar.write_text(LIAR.format(python=sys.executable, what="fetch", lie=lie))
    liar.chmod(0o755)
    write_clip(tmp_path / "clip.avi", 3)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    words = ["--camera", "clip.avi", "--labels", "labels.txt", "--summary", "s.json"]
    done = edge_ran("run", test_models / "int8.tflite", "--device", board(python=str(liar)), *words)
    assert _is_one_error(done, "sends more than fits")
    assert not (tmp_path / "s.json").exists()
