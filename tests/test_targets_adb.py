"""The real adb client and server against a double of a phone that speaks the wire protocol."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from adb_device import Device, Server
from ports import free_port

from edge_ran.errors import EnvironmentMissing, UsageError
from edge_ran.targets import adb
from edge_ran.targets.adb import Adb
from edge_ran.targets.adb_phone import FOLDER, Phone


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def test_a_phone_says_what_it_is(phone: Device):
    facts = Phone(phone.serial).facts()
    assert (facts.model, facts.android) == ("Google Pixel 99", "15")
    assert (facts.sdk, facts.abis, facts.soc, facts.gpu) == (
        35,
        ("arm64-v8a", "armeabi-v7a"),
        "Google Tensor G9",
        "Mali-G715",
    )
    assert facts.cores == os.cpu_count()
    assert facts.is_virtual is None
    assert Phone(phone.serial).warmth() == (0, 41.5)


def test_a_phone_that_hides_everything(phones: Callable[..., Device]):
    device = phones(properties={})
    device.tool("dumpsys", "exit 1")
    device.tool("grep", "exit 1")
    facts = Phone().facts()
    assert (facts.sdk, facts.abis, facts.soc, facts.gpu, facts.cores, facts.memory_mb) == (None, (), "", "", 1, None)
    assert Phone().warmth() == (None, None)


@pytest.mark.parametrize("has_shell_v2", [True, False], ids=["today", "before Android 7"])
def test_status_and_lines_of_a_command(phones: Callable[..., Device], has_shell_v2: bool):
    phones(has_shell_v2=has_shell_v2)
    with Phone() as there:
        heard: list[str] = []
        done = there.shell("echo one; printf two; false", on_line=heard.append)
        assert (done.status, done.lines) == (1, ("one", "two"))
        assert heard[:2] == ["one", "two"]
        assert there.shell("sh -c 'kill -SEGV $$'").status == 139
        assert there.shell("echo yes", timeout_s=float("inf")).lines == ("yes",)
        assert there.shell("echo edge-ran-0 0").lines == ("edge-ran-0 0",), "no output passes for the end"


def test_words_of_a_phone_are_bounded_and_clean(phone: Device):
    with Phone() as there:
        done = there.shell(r"printf 'a\033]0;title\007b\033[31mred\r\n\342\200\256x\n'; printf '\377\n'")
        assert all(c.isprintable() for line in done.lines for c in line)
        done = there.shell("head -c 30000000 /dev/zero | tr '\\0' x; echo; seq 1 200000; echo the end", timeout_s=60)
    assert max(map(len, done.lines)) <= adb.LONGEST_LINE
    assert len(done.lines) <= adb.MOST_LINES
    assert done.lines[-1] == "the end"


def test_a_phone_in_no_state_to_be_used(adb_server: Server, phones: Callable[..., Device], monkeypatch):
    with pytest.raises(EnvironmentMissing, match="no phone is connected") as none:
        Phone()
    assert "USB debugging" in none.value.remedy

    strict = phones(trusted=False)
    wait_for(lambda: "unauthorized" in adb_server.adb("devices"))
    with pytest.raises(EnvironmentMissing, match=f"phone {strict.serial} does not trust this computer") as refused:
        Phone()
    assert "Allow USB debugging" in refused.value.remedy

    good = phones()
    with pytest.raises(EnvironmentMissing, match=r"2 phones are connected: .*Pixel 99") as several:
        Phone()
    assert "--device adb:" in several.value.remedy
    assert Phone(good.serial).serial == good.serial
    monkeypatch.setenv("ANDROID_SERIAL", good.serial)
    assert Phone().serial == good.serial

    good.unplug()
    wait_for(lambda: f"{good.serial}\toffline" in adb_server.adb("devices"))
    with pytest.raises(EnvironmentMissing, match=f"phone {good.serial} is offline"):
        Phone(good.serial)
    with pytest.raises(EnvironmentMissing, match="no phone 1234 is connected, but there is"):
        Phone("1234")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "0123 no permissions (user in plugdev group; are your udev rules wrong?); see [http://x]",
            "over USB by this user",
        ),
        ("0123 recovery product:x model:y", "'recovery'"),
    ],
)
def test_states_that_only_usb_has(tmp_path: Path, monkeypatch, line: str, words: str):
    program = tmp_path / "adb"
    program.write_text(f"#!/bin/sh\necho '{adb.HEADING}'\necho '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    with pytest.raises(EnvironmentMissing, match=words):
        Phone()


def test_a_serial_with_a_space_is_one_phone(tmp_path: Path, monkeypatch):
    serial = "adb-R5CT20ABCDE-Xy12Zw (2)._adb-tls-connect._tcp"
    program = tmp_path / "adb"
    program.write_text(
        f"#!/bin/sh\ntest \"$1\" = devices || exit 1\necho '{adb.HEADING}'\n"
        f"echo '{serial} device product:p model:Pixel_9'\necho 'R5 device product:p model:Old'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    assert [(one.serial, one.model) for one in Adb().listed()] == [(serial, "Pixel 9"), ("R5", "Old")]
    assert Phone(serial).serial == serial
    with pytest.raises(EnvironmentMissing, match="2 phones") as several:
        Phone()
    assert f"--device 'adb:{serial}'" in several.value.remedy


def test_no_client(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match="adb is not installed") as error:
        Phone()
    assert "apt install adb" in error.value.remedy


def test_a_client_for_another_processor(monkeypatch, tmp_path: Path):
    """Google's platform-tools are for x86_64 alone."""
    program = tmp_path / "adb"
    program.write_bytes(b"\x7fELF" + bytes(100))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    with pytest.raises(EnvironmentMissing, match="adb cannot be started here: Exec format error") as error:
        Phone()
    assert "apt install adb" in error.value.remedy


def test_a_server_of_another_version_is_left_alone(monkeypatch):
    """The client would end it: it must not be started at all."""
    if shutil.which("adb") is None:
        pytest.skip("no adb client (Debian: apt install adb)")
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.getsockname()[1]))

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(100))
                connection.sendall(b"OKAY00040028")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(EnvironmentMissing, match=r"has version 40; .*adb of 41 would end it"):
            Adb()
        thread.join()
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.accept()
    assert asked == [b"000chost:version"]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "many")
    with pytest.raises(UsageError, match="is not a port"):
        Adb()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "")  # as if it were not set
    assert adb._server_address() == ("127.0.0.1", 5037)


def test_looking_starts_no_server(monkeypatch):
    if shutil.which("adb") is None:
        pytest.skip("no adb client (Debian: apt install adb)")
    port = free_port()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    with pytest.raises(EnvironmentMissing, match="no adb server is running"):
        Adb(starts_server=False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_the_users_server_outlives_us(adb_server: Server, phone: Device):
    Phone().close()
    assert adb_server.is_running()


def test_a_file_is_sent_once_and_a_retrained_one_again(phone: Device, tmp_path: Path):
    model = tmp_path / "my model.tflite"
    model.write_bytes(b"a" * 300_000)
    with Phone() as there:
        first = there.put(model)
        assert first.startswith(f"{FOLDER}/")
        assert first.endswith(".tflite")
        assert there.put(model) == first
        assert len(phone.sent) == 1
        model.write_bytes(b"b" * 300_000)  # trained again: as large as before
        second = there.put(model)
        assert second != first
        assert len(phone.sent) == 2
    with Phone() as there:
        assert there.put(model) == second
    assert len(phone.sent) == 2
    (phone.root / "tmp" / "edge-ran" / Path(second).name).write_bytes(b"cut")
    assert Phone().put(model) == second
    assert len(phone.sent) == 3, "what is shorter there is sent again"
    assert all("part-" in path for path, _ in phone.sent), "under another name until it is whole"
    assert len(phone.files()) == 2


def test_a_program_can_be_started_there(phone: Device, tmp_path: Path):
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho it runs\n")
    program.chmod(0o600)
    with Phone() as there:
        assert there.shell(there.put(program, executable=True)).lines == ("it runs",)


def test_no_space_there(phones: Callable[..., Device], tmp_path: Path):
    device = phones(space_bytes=100_000)
    model = tmp_path / "large.tflite"
    model.write_bytes(bytes(300_000))
    with pytest.raises(EnvironmentMissing, match=r"cannot send large\.tflite: no space left on phone") as error:
        Phone().put(model)
    assert "--clean" in error.value.remedy
    assert device.files() == []


def test_what_arrives_spoilt_is_not_kept(phone: Device, tmp_path: Path):
    phone.tool("sha256sum", 'echo "0123456789  $1"')
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x" * 1000)
    with pytest.raises(EnvironmentMissing, match="what arrived is not what was sent"):
        Phone().put(model)
    assert phone.files() == []


def test_a_phone_without_sha256sum_is_believed_by_size(phone: Device, tmp_path: Path):
    phone.tool("sha256sum", "exit 127")
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x" * 1000)
    Phone().put(model)
    assert len(phone.files()) == 1


def test_fetching(phone: Device, tmp_path: Path):
    with Phone() as there:
        name = there.put_temporary(b"abc\n\0\r\n", "x", tmp_path)
        assert there.get(name, 100, tmp_path) == b"abc\n\0\r\n"
        assert there.get(name, 3, tmp_path) == b"", "more than is due is not fetched"
        assert there.get(f"{FOLDER}/none", 100, tmp_path) == b""
        assert phone.files() == [name.removeprefix("/data/local/tmp/")]
    assert phone.files() == [], "the run's folder goes"


def test_pulled_out_in_the_middle_of_a_command(phone: Device):
    with Phone() as there:
        folder = there.run_folder()
        local = Path(phone.local(folder))
        assert local.is_dir()
        threading.Timer(0.5, phone.unplug).start()
        begun = time.monotonic()
        with pytest.raises(EnvironmentMissing, match=f"phone {phone.serial} went away"):
            there.shell(f"trap 'kill -9 $p; rm -rf {folder}' HUP; sleep 30 & p=$!; wait $p", timeout_s=60)
        assert time.monotonic() - begun < 20
        wait_for(lambda: not local.exists())  # the phone's own shell leaves nothing


def test_pulled_out_in_the_middle_of_a_file(phone: Device, tmp_path: Path):
    model = tmp_path / "m.tflite"
    model.write_bytes(os.urandom(40_000_000))
    threading.Timer(0.3, phone.unplug).start()
    with pytest.raises(EnvironmentMissing):
        Phone().put(model)
    assert not [name for name in phone.files() if "part-" not in name], "half a file has no name to be believed by"


def test_a_command_that_does_not_end_is_ended(phone: Device):
    with pytest.raises(EnvironmentMissing, match="took longer than 1 s"), Phone() as there:
        there.shell(f"trap 'kill -9 $p; touch {FOLDER}-ended' HUP; sleep 30 & p=$!; wait $p", timeout_s=1)
    wait_for(lambda: phone.files() == ["edge-ran-ended"])


def test_emptying_the_phone(phone: Device, tmp_path: Path):
    model = tmp_path / "m.tflite"
    model.write_bytes(bytes(12_345))
    with Phone() as there:
        assert there.empty() == 0
        there.put(model)
        there.put_temporary(bytes(100), "x", tmp_path)
        assert there.empty() == 12_445
    assert phone.files() == []


def test_what_others_left_a_day_ago_goes(phone: Device):
    folder = phone.root / "tmp" / "edge-ran"
    for name in ("run-old", "run-new"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x").write_text("x")
    os.utime(folder / "run-old", (0, 0))
    with Phone() as there:
        there.run_folder()
        assert phone.files() == ["edge-ran/run-new/x"]
