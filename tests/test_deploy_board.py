"""What a board's agent does for deployments, over a real sshd; no systemd is needed for these requests."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shlex
import shutil
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from loopback import wait_for
from sshd import Sshd

from edge_ran import targets
from edge_ran.catalogue import DeviceSpec
from edge_ran.cli import main
from edge_ran.deploy import board as board_side
from edge_ran.deploy import boards, fetch, fleet, rollout
from edge_ran.deploy.connections import Connections
from edge_ran.deploy.layout import Layout, append
from edge_ran.deploy.release import Plan, record_answers
from edge_ran.deploy.remote import Facts, Remote
from edge_ran.errors import EnvironmentMissing
from edge_ran.targets import agent
from edge_ran.targets.ssh import connection
from edge_ran.targets.ssh.packages import Installed, requirements
from edge_ran.targets.ssh.session import Folders, Session

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
    return There(targets.resolve(str(sshd.board(tmp_path))), Layout(tmp_path / "data" / "edge-ran"))


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


DOZE = """
class Board:
    def __init__(self, agent):
        self.agent = agent

    def do_doze(self):
        return {"code": self.agent.execute(["sleep", "30"], {})}
"""


def test_ctrl_c_ends_a_deployment_before_the_release_is_switched_to(
    there: There, labelled_model, tmp_path, monkeypatch, request
):
    here, asked = threading.get_ident(), []

    def accept(remote: Remote, *_: object) -> None:
        remote.session.request("extend", {"modules": {"doze": DOZE}}, {})
        threading.Timer(0.5, signal.pthread_kill, (here, signal.SIGINT)).start()
        remote.session.request("doze", {}, {})

    monkeypatch.setattr(Remote, "check", lambda remote, plan: remote.facts())
    monkeypatch.setattr(Remote, "accept", accept)
    monkeypatch.setattr(Remote, "switch", lambda remote, identity: asked.append(identity))
    before = threading.active_count()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born without
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    with pytest.raises(KeyboardInterrupt):
        pytest.fail(f"not interrupted: {rollout.deploy([('board', there.spec)], Plan(labelled_model()), print)}")
    assert asked == []
    assert threading.active_count() == before


def test_ctrl_c_ends_a_connection_that_is_being_made(there: There):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spec = dataclasses.replace(there.spec, target=f"ssh://127.0.0.1:{silent.getsockname()[1]}")
        remote = Remote(spec, lambda line: None, 60)
        threading.Timer(0.5, remote.session.cut).start()
        with pytest.raises(EnvironmentMissing), remote:
            pass
        with pytest.raises(EnvironmentMissing):
            remote.facts()


def test_a_deployment_that_is_refused_takes_nothing_from_the_one_that_goes_on(there: There):
    with Remote(there.spec, lambda line: None) as one, Remote(there.spec, lambda line: None) as other:
        one.session.ask("deployment", Folders)
        with pytest.raises(EnvironmentMissing, match="another deployment to this board is going on"):
            other.session.ask("deployment", Folders)
        other.finish()
        assert (there.layout.home / ".incoming").is_dir()
        one.finish()
        assert not there.layout.home.exists()  # nothing was deployed


def another_python(folder: Path) -> Path:
    """A virtual environment with this one's packages."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    own = Path(sys.executable).resolve()
    python.symlink_to(own)
    (folder / "pyvenv.cfg").write_text(f"home = {own.parent}\n")
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "here.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def test_another_python_in_the_description_is_another_release(there: There, labelled_model, tmp_path: Path):
    plan, answers, staged = Plan(labelled_model()), tmp_path / "answers.npz", []
    record_answers(plan, answers)
    wrapper, other = Path(there.spec.python), another_python(tmp_path / "venv")
    for python in (sys.executable, str(other)):
        wrapper.write_text(wrapper.read_text().replace(sys.executable, python))
        with Remote(there.spec, lambda line: None) as remote:
            assert remote.facts().python == python
            staged.append(remote.stage(plan, answers, remote.facts().python))
            start = (there.layout.releases / staged[-1].identity / "start").read_text()
            assert f" exec {shlex.quote(python)} " in start
    assert staged[0].identity != staged[1].identity


def test_a_dry_run_says_what_a_deployment_would(
    there: There, labelled_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan, answers = Plan(labelled_model()), tmp_path / "answers.npz"
    record_answers(plan, answers)

    def planned(plan: Plan) -> rollout.Outcome:
        return rollout.plan_one("board", there.spec, plan, answers, lambda line: None, Connections())

    assert planned(plan).reason.startswith("board cannot keep a service running")
    monkeypatch.setattr(Remote, "look_over", lambda remote, plan: remote.facts())
    monkeypatch.setattr(Session, "look", lambda *words: Installed("", "", "", "", ("numpy",), ("a", "1")))
    assert planned(plan).reason == "board lacks numpy"
    to_come = planned(dataclasses.replace(plan, install=True))
    assert (to_come.end, to_come.release, "pip would install numpy" in to_come.reason) == ("planned", "", True)
    assert not there.layout.home.exists()

    def install(requirements: list[str], target: str) -> dict[str, int]:
        Path(target).mkdir()
        return {"code": 0}

    there.layout.home.mkdir(parents=True)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    board_side.Board(SimpleNamespace(do_install=install)).do_equip(requirements(there.spec.runtime), True)
    with Remote(there.spec, lambda line: None) as remote:
        made = remote.stage(plan, answers, remote.facts().python)
    assert made.environment
    assert (planned(plan).end, planned(plan).release) == ("planned", made.identity)
    there.layout.switch(made.identity)
    again = planned(plan)  # it is there, but no systemd runs it
    assert (again.end, "would start again: it does not run" in again.reason) == ("planned", True)
    monkeypatch.setattr(Remote, "status", lambda remote: SimpleNamespace(trouble=""))
    same = planned(plan)  # as `deploy` says it
    assert (same.end, same.release, same.reason) == ("unchanged", made.identity, "")


def with_systemd(there: There, program: str = "") -> None:
    """Give the board a systemd that does nothing, or runs a program whatever it is told."""
    folder = Path(there.spec.python).parent / "systemd"
    folder.mkdir()
    for name in ("systemctl", "systemd-run"):
        (folder / name).write_text(f"#!/bin/sh\n{program}\n")
        (folder / name).chmod(0o755)
    wrapper = Path(there.spec.python)
    wrapper.write_text(wrapper.read_text().replace(" exec ", f" PATH={folder}:$PATH exec "))


def test_ctrl_c_says_which_boards_may_have_gone_back_and_goes_on_with_the_others(
    there: There, monkeypatch, request, capsys, tmp_path: Path
):
    place, here = there.layout, threading.get_ident()
    for name in "abc":
        (place.releases / name).mkdir(parents=True)
        (place.releases / name / "release.json").write_text("{}")
        place.switch(name)
        place.confirm(name)
    with_systemd(there)

    def wait(*words: object) -> None:  # while it is waited for, and the other board has not answered yet
        signal.pthread_kill(here, signal.SIGINT)
        time.sleep(0.5)
        raise EnvironmentMissing("the connection was lost")

    monkeypatch.setattr(Remote, "wait", wait)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born without
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        off = tmp_path / "off.toml"
        target = f"ssh://127.0.0.1:{silent.getsockname()[1]}"
        off.write_text(f'summary = "x"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "{target}"\n')
        on = tmp_path / "board.toml"
        monkeypatch.setattr(sys, "argv", ["edge-ran", "rollback", "-d", str(on), f"--device={off}", "--wait", "9"])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 130
    assert capsys.readouterr().err.splitlines() == [
        f"edge-ran: stopped; {on} may have gone back, {off} has not; to see which release runs, and to go on:",
        f"  edge-ran status --device {on}",
        f"  edge-ran rollback --wait 9 --device {off}",
    ]
    assert (place.current_id(), place.earlier_ids()) == ("b", ["a"])  # the next one goes further back


def test_what_is_being_removed_is_removed_to_the_end_when_the_connection_ends(there: There):
    there.record("red/c1/000001.jpg", b"one")
    with_systemd(there, f"touch {there.layout.home}/begun; sleep 0.3")
    with Remote(there.spec, lambda line: None) as remote:

        def cut() -> None:
            wait_for((there.layout.home / "begun").exists, 20)
            remote.session.cut()

        threading.Thread(target=cut).start()
        with pytest.raises(EnvironmentMissing):
            remote.session.request("undeploy", {}, {})
    wait_for(lambda: not there.layout.home.exists(), 20)


def test_rolling_back_again_goes_further_back(there: There, monkeypatch: pytest.MonkeyPatch):
    place = there.layout

    def work(identity: str) -> None:
        place.switch(identity)
        place.confirm(identity)  # as the service does, when it classifies

    for name in "abc":
        (place.releases / name).mkdir(parents=True)
        (place.releases / name / "release.json").write_text("{}")
        work(name)
    with_systemd(there)
    monkeypatch.setattr(Remote, "wait", lambda remote, identity, seconds: work(identity))
    for expected in ("b", "a", ""):
        (change,) = fleet.roll_back([("board", there.spec)], lambda line: None, 1, set()).boards
        assert change.release == expected
    assert "no earlier release that worked" in change.failure
    assert place.current_id() == "a"


def test_packages_of_another_python_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def install(requirements: list[str], target: str) -> dict[str, int]:
        Path(target).mkdir()
        return {"code": 0}

    board = board_side.Board(SimpleNamespace(do_install=install))
    board.layout.home.mkdir()
    first = board.do_equip(["numpy"], True)["environment"]
    assert board.do_equip(["numpy"], False)["environment"] == first
    for version, python in (((3, 99), sys.executable), (sys.version_info[:2], "/opt/python")):
        monkeypatch.setattr(board_side, "sys", SimpleNamespace(version_info=version, executable=python), raising=False)
        assert board.do_equip(["numpy"], False)["environment"] == ""
        assert board.do_equip(["numpy"], True)["environment"] != first


def test_boards_that_are_noted_at_the_same_time_are_all_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    known = boards.known

    def slowly() -> list[str]:
        found = known()
        time.sleep(0.01)
        return found

    monkeypatch.setattr(boards, "known", slowly)
    names = [f"board{number}" for number in range(8)]
    for work, left in ((boards.remember, names), (boards.forget, [])):
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(known()) == left
    with open(tmp_path / "edge-ran" / "boards.lock") as other_process:
        fcntl.flock(other_process, fcntl.LOCK_EX)
        waiting = threading.Thread(target=boards.remember, args=("mine",))
        waiting.start()
        (tmp_path / "edge-ran" / "boards.json").write_text(json.dumps(["theirs"]))
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join()
    assert known() == ["theirs", "mine"]


def test_a_board_that_another_machine_deployed_to_is_noted(there: There, labelled_model, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    same = SimpleNamespace(identity="0123456789ab")
    facts = Facts("pi", "/home/pi", sys.executable, "", True, 1 << 30, same.identity)
    remote: Any = SimpleNamespace(
        check=lambda plan: facts, stage=lambda *words: same, status=lambda: SimpleNamespace(trouble="")
    )
    work = rollout._Deployment("pi4", there.spec, Plan(labelled_model()), lambda line: None)
    assert work.carry_out(remote, tmp_path) == ("unchanged", "")
    assert boards.known() == ["pi4"]


def test_a_list_that_cannot_be_written_is_told_of_its_board_alone(there: There, monkeypatch: pytest.MonkeyPatch):
    def full(device: str) -> None:
        raise EnvironmentMissing("no space left on the disk of boards.json; nothing was written", "free some space")

    monkeypatch.setattr(boards, "forget", full)
    (change,) = fleet.undeploy([("board", there.spec)], lambda line: None).boards
    assert change.failure.startswith("no space left")
    assert change.exit_code == 3
