"""What a board's agent does for deployments, over a real sshd; no systemd is needed for these requests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sshd import Sshd

from edge_ran import targets
from edge_ran.catalogue import DeviceSpec
from edge_ran.deploy import fetch, fleet
from edge_ran.deploy.layout import Layout, append
from edge_ran.deploy.remote import Remote
from edge_ran.errors import EnvironmentMissing
from edge_ran.targets import agent
from edge_ran.targets.ssh import connection
from edge_ran.targets.ssh.session import Folders

pytestmark = [
    pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd; Debian: apt install openssh-server"),
    pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh; Debian: apt install openssh-client"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


class There(NamedTuple):
    """A board: its description, and the files of its deployment, as seen from here."""

    spec: DeviceSpec
    layout: Layout

    def record(self, name: str, data: bytes) -> None:
        """Put a picture where the service records."""
        path = self.layout.records / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def there(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    """A board with a home of its own for each test."""
    monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(sshd.config))
    python = tmp_path / "python"
    where = f"XDG_RUNTIME_DIR={tmp_path}/run XDG_DATA_HOME={tmp_path}/data XDG_CONFIG_HOME={tmp_path}/config"
    python.write_text(f'#!/bin/sh\n{where} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    toml = tmp_path / "board.toml"
    toml.write_text(
        f'summary = "a board"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://127.0.0.1:{sshd.port}"\n'
        f'python = "{python}"\n'
    )
    return There(targets.resolve(str(toml)), Layout(tmp_path / "data" / "edge-ran"))


def test_a_name_that_is_used_again_takes_no_picture_away(there: There, tmp_path: Path):
    more = tmp_path / "more"
    for data in (b"one", b"two", b"two"):  # the last as after a fetch that was stopped before the board removed it
        there.record("red/c1/000001.jpg", data)
        assert fetch.fetch(there.spec, more).removed == 1
        assert not list(there.layout.records.rglob("*.jpg"))
    assert sorted(path.read_bytes() for path in more.rglob("*.jpg")) == [b"one", b"two"]
    assert {path.parent for path in more.rglob("*.jpg")} == {more / "red" / "board-c1"}


def test_lists_longer_than_a_frame_arrive(there: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "LONGEST_FRAME", agent.BLOCK)
    for number in range(700):
        there.record(f"red/c1/{number:06d}.jpg", b"x")
    append(there.layout.log, "".join(f"line {number}\n" for number in range(10_000)))
    assert fleet.log(there.spec, 10_000).lines[-1] == "line 9999"
    with Remote(there.spec, lambda line: None) as remote:
        listed = remote.session.ask_for_data("records", fetch._Recorded)
    assert len(listed.files) == 700


NAP = """
class Board:
    def __init__(self, agent):
        self.agent = agent

    def do_nap(self):
        self.agent.wire.heard -= 1000  # as if it had read nothing for so long
        return {"rested": True}
"""


def test_a_request_that_takes_long_is_no_silence(there: There):
    with Remote(there.spec, lambda line: None) as remote:
        remote.session.request("extend", {"modules": {"nap": NAP}}, {})
        for _ in range(2):
            assert remote.session.request("nap", {}, {}) == {"rested": True}


def test_ctrl_c_ends_a_fetch_where_nothing_runs_that_it_could_end(there: There):
    there.record("red/c1/000001.jpg", b"one")
    with Remote(there.spec, lambda line: None) as remote:

        def interrupt(data: bytes) -> None:
            raise KeyboardInterrupt  # as Ctrl-C does, at any moment

        with pytest.raises(KeyboardInterrupt):
            remote.session.request("send", {"name": "red/c1/000001.jpg"}, {b"D": interrupt}, 20)


def test_a_deployment_that_is_refused_takes_nothing_from_the_one_that_goes_on(there: There):
    with Remote(there.spec, lambda line: None) as one, Remote(there.spec, lambda line: None) as other:
        one.session.ask("deployment", Folders)
        with pytest.raises(EnvironmentMissing, match="another deployment to this board is going on"):
            other.session.ask("deployment", Folders)
        other.finish()
        assert (there.layout.home / ".incoming").is_dir()
        one.finish()
        assert not there.layout.home.exists()  # nothing was deployed
