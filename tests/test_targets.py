"""The words of ``--device``, and what is done with what a device says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_ran import cli, targets
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import InputError, UsageError
from edge_ran.targets import agent
from edge_ran.targets.address import SshAddress, ssh_address
from edge_ran.targets.sanitize import clean, parse
from edge_ran.targets.ssh import command_line, connection, failure, packages
from edge_ran.targets.ssh.payload import Payload

BOARD = DeviceSpec("board", "b", "cpu", "int8", target="ssh://pi@board:2222")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://board", SshAddress("board")),
        ("ssh://pi@board", SshAddress("board", "pi")),
        ("ssh://pi@board.local:2222", SshAddress("board.local", "pi", 2222)),
        ("ssh://pi@192.168.0.7:22/", SshAddress("192.168.0.7", "pi", 22)),
        ("ssh://[fe80::1%eth0]:22", SshAddress("fe80::1%eth0", "", 22)),
    ],
)
def test_an_address_for_ssh(text: str, address: SshAddress):
    assert ssh_address(text) == address
    assert targets.resolve(text).target == text


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://a@-b",
        "ssh://a b",
        "ssh://host:0",
        "ssh://host:99999",
        "ssh://host:x",
        "ssh://host/path",
        "ssh://u@v@host",
        "ssh://host\n",
        "ssh://ho;st",
        "ssh://$(x)@host",
        "adb:-s",
        "adb:a b",
        "adb:a (2); reboot",
        "adb:a (-s x)",
        "http://host",
        "",
        "no-such-device",
    ],
)
def test_words_that_are_no_device(text: str):
    with pytest.raises(UsageError) as caught:
        targets.resolve(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "serial",
    [
        "",
        "R5CT20ABCDE",
        "192.168.1.20:5555",
        "[fe80::1%wlan0]:5555",
        "adb-R5CT20ABCDE-Xy12Zw._adb-tls-connect._tcp",
        "adb-R5CT20ABCDE-Xy12Zw (2)._adb-tls-connect._tcp",
    ],
)
def test_a_serial_of_adb(serial: str):
    """As adb lists phones over USB, the network and mDNS, which numbers a name that is taken."""
    assert targets.resolve(f"adb:{serial}").target == f"adb:{serial}"


def test_names_and_files_are_devices_too(tmp_path: Path):
    assert targets.resolve("local").target == "local"
    assert targets.resolve("raspberry-pi-5").target == "ssh://pi@raspberrypi.local"
    mine = tmp_path / "mine.toml"
    mine.write_text('summary = "s"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://-x"\n')
    with pytest.raises(UsageError, match="not an address for ssh"):
        targets.resolve(str(mine))


def test_nothing_of_an_address_becomes_an_option_or_a_command():
    board = DeviceSpec("b", "b", "cpu", "int8", target="ssh://pi@board:2222", python="~/my env/python; reboot")
    words = command_line.command(board, ssh_address(board.target), 5, 100)
    assert words[0] == "ssh"
    assert words[-3:-1] == ["--", "board"]
    assert words[-1].startswith("exec ~/'my env/python; reboot' -I -u -c '")
    assert "-oBatchMode=yes" in words
    assert [words[words.index(flag) + 1] for flag in ("-p", "-l")] == ["2222", "pi"]


@pytest.mark.parametrize(
    ("said", "status", "what"),
    [
        ("ssh: Could not resolve hostname board: Name or service not known", 255, "no host is called board"),
        ("ssh: connect to host board port 22: Connection refused", 255, "refuses connections"),
        ("ssh: connect to host board port 22: Connection timed out", 255, "does not answer"),
        ("ssh: connect to host board port 22: No route to host", 255, "does not answer"),
        ("pi@board: Permission denied (publickey,password).", 255, "takes none of our keys"),
        ("Received disconnect from 10.0.0.9: 2: Too many authentication failures", 255, "offered too many keys"),
        ("Unable to negotiate: no matching host key type found. Their offer: ssh-rsa", 255, "has an old ssh"),
        ("Bad owner or permissions on /home/me/.ssh/config", 255, "others may write it"),
        ("@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\npi@board: Permission denied", 255, "others may read"),
        ("Host key verification failed.", 255, "is not known"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            255,
            "another host key than before",
        ),
        ("sh: 1: exec: python3: not found", 127, "there is no python3"),
        ("edge-ran-python 3.9", 1, "Python 3.9 is too old"),
        ("something new", 255, "something new"),
        ("", 3, "status 3"),
    ],
)
def test_why_there_is_no_connection(said: str, status: int, what: str):
    told, remedy = failure.explain(said.splitlines(), status, SshAddress("board", "pi"), "python3")
    assert what in told
    assert remedy
    assert "\n" not in told + remedy


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;Zm9v\x1b\\after", "after"),
        ("\x1bcreset", "reset"),
        ("bell\x07 back\x08 null\x00 del\x7f c1\x9b", "bell back null del c1"),
        ("tab\tstays, Größe und 日本語 auch", "tab\tstays, Größe und 日本語 auch"),
        ("turned\u202e\u2066", "turned"),
        ("\ud800", ""),
    ],
)
def test_a_device_cannot_write_to_the_terminal(text: str, safe: str):
    assert clean(text) == safe


def test_strings_of_a_record_are_clean():
    record = parse('{"a\\u001b[1m": ["\\u001b]0;x\\u0007y", {"z": "\\u0000"}], "n": 1.5}')
    assert record == {"a": ["y", {"z": ""}], "n": 1.5}


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "\xff", '{"a":' * 100_000, "{}{}"])
def test_what_is_no_record_is_said(text: str):
    with pytest.raises(InputError, match="not JSON") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_frames_come_after_the_hello_and_whatever_a_login_says():
    class Stream:
        def __init__(self, *blocks: bytes) -> None:
            self.blocks = list(blocks)

        def read(self, size: int) -> bytes:
            return self.blocks.pop(0) if self.blocks else b""

    frame = agent.HEADER.pack(b"A", 2) + b"{}"
    noisy = b"Welcome!\n" * 10_000 + agent.HELLO + frame + frame
    cut = [noisy[i : i + 777] for i in range(0, len(noisy), 777)]
    assert list(connection.read_frames(Stream(*cut))) == [(b"H", b""), (b"A", b"{}"), (b"A", b"{}")]
    huge = agent.HEADER.pack(b"O", 1 << 31)
    assert list(connection.read_frames(Stream(agent.HELLO + frame + huge))) == [(b"H", b""), (b"A", b"{}")]
    assert list(connection.read_frames(Stream(b"no agent here"))) == []


def test_options_become_words_and_what_lies_here_goes_along(tmp_path: Path):
    from pathlib import PurePosixPath

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "labels.txt").write_text("x\ny\n")
    options = {
        "num_runs": 5,
        "cpu": True,
        "realtime": False,
        "until": "2%",
        "sweep": ["threads=1,2", "precision=int8"],
        "labels": tmp_path / "labels.txt",
        "images": tmp_path / "in",
        "save": targets.Result(tmp_path / "out.avi"),
        "delegate": "/usr/lib/x.so",
    }
    with Payload(PurePosixPath("/w"), PurePosixPath("/p")) as payload:
        words = payload.words(options)
        (folder,) = [name for name, content in payload.contents.items() if content.is_folder]
        again = Payload(PurePosixPath("/w"), PurePosixPath("/p"))
        assert again.folder(targets.Parcel(tmp_path / "in", (tmp_path / "in" / "a.txt",))).name == folder
        again.__exit__()
    assert words == [
        "--num-runs=5", "--cpu", "--no-realtime", "--until=2%", "--sweep=threads=1,2", "--sweep=precision=int8",
        "--labels=/w/labels/labels.txt", f"--images=/p/{folder}", "--save=/w/out/save/out.avi",
        "--delegate=/usr/lib/x.so",
    ]  # fmt: skip
    assert payload.results == [(PurePosixPath("/w/out/save/out.avi"), options["save"])]
    assert payload.local("cannot read /w/labels/labels.txt") == f"cannot read {tmp_path / 'labels.txt'}"


def test_what_is_needed_there_is_what_the_package_requires():
    """The list that a device is searched for names what pip installs."""
    import re

    wanted = {re.split(r"[<>=;\[ ]", line)[0] for line in packages.requirements("litert")}
    assert {name for _, name in packages.NEEDED} | {"ai-edge-litert"} <= wanted | {"tomli"}
    assert {name for name in wanted if name not in ("ai-edge-litert", "tomli")} == {name for _, name in packages.NEEDED}
    old = packages.requirements("tflite-runtime")
    assert any(line.startswith("tflite-runtime") for line in old)
    assert not any(line.startswith("ai-edge-litert") for line in old)


@pytest.mark.parametrize(
    "device",
    [
        "ssh://pi:Secret77@board.invalid",
        "ssh://pi:Secret77@board.invalid:22",
        "ssh://pi:Sec:ret77@board.invalid:99999",
        "ssh://pi:Secret77/x@board.invalid",
        "pi:Secret77@board.invalid",
        "http://pi:Secret77@board.invalid",
    ],
)
@pytest.mark.parametrize("verb", ["devices", "benchmark --device", "status --device", "logs --device"])
def test_a_password_in_a_devices_address_is_not_repeated(
    verb: str, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edge-ran", *verb.split(), device])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    told = capsys.readouterr()
    assert "ret77" not in told.out + told.err
    assert "board.invalid" in told.err
