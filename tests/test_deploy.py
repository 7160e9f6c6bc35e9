"""Deployments on a real board with systemd (``systemd_board``), and their parts without one."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest
import systemd_board
from loopback import MjpegServer, jpeg, wait_for
from models import colours
from sshd import Sshd
from systemd_board import Board

from edge_ran import records, targets
from edge_ran.catalogue import DeviceSpec
from edge_ran.cli import main
from edge_ran.deploy import board as board_side
from edge_ran.deploy import fetch, fleet, layout, rollout, service
from edge_ran.deploy.acceptance import Acceptance
from edge_ran.deploy.layout import Layout
from edge_ran.deploy.release import Plan, new_payload, pack, record_answers
from edge_ran.deploy.remote import gate
from edge_ran.errors import EnvironmentMissing, GateError
from edge_ran.latency import LatencyStats
from edge_ran.runtime import Accelerator
from edge_ran.runtime.agreement import Agreement

pytestmark = pytest.mark.serial

TESTS = Path(__file__).parent


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def record(self) -> Any:
        return json.loads(self.stdout)


@pytest.fixture
def edge_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Done]:
    """A function that runs a command line to its end, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["edge-ran", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run


# Without a board.


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service keeps in memory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def make_release(place: Layout, identity: str, **values: object) -> None:
    (place.releases / identity).mkdir(parents=True)
    (place.releases / identity / "release.json").write_text(json.dumps({"contents": [], **values}))


def test_the_link_leads_to_a_whole_release_and_old_ones_go(tmp_path: Path):
    place = Layout(tmp_path / "home")
    assert place.current_id() == ""
    for number in range(5):
        name = f"r{number}"
        (place.store / f"c{number}").parent.mkdir(parents=True, exist_ok=True)
        (place.store / f"c{number}").write_text("x")
        make_release(place, name, contents=[f"c{number}"])
        place.switch(name)
        assert place.current_id() == name
        place.confirm(name)
        os.utime(place.releases / name / "worked", (number, number))
    make_release(place, "refused", contents=["c9"])
    assert place.earlier_ids() == ["r3", "r2", "r1", "r0"]
    place.prune()
    assert sorted(path.name for path in place.releases.iterdir()) == ["r2", "r3", "r4"]
    assert sorted(path.name for path in place.store.iterdir()) == ["c2", "c3", "c4"]
    (place.releases / "r4" / "release.json").unlink()
    assert place.current_id() == ""


def test_logs_are_bounded_and_the_oldest_lines_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layout, "LONGEST_LOG_BYTES", 1000)
    for number in range(500):
        layout.append(tmp_path / "log", f"line {number}\n")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000
    assert layout.last_lines(tmp_path / "log", 3) == ["line 497", "line 498", "line 499"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("watch at http://10.0.0.2:8080/?token=s3cret-X_", "watch at http://10.0.0.2:8080/?token=…"),
        ("rtsp://me:hunter2@10.0.0.9/x is lost", "rtsp://10.0.0.9/x is lost"),
        ("12 frames", "12 frames"),
    ],
)
def test_a_log_holds_no_secret(line: str, shown: str):
    assert service.hidden(line) == shown


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., tuple[Layout, int, list[str]]]:
    """A function: run the service until it ends, with a program in the place of ``edge-ran run``."""
    home = tmp_path / "home"
    place = Layout(home)
    code = tmp_path / "code"
    shutil.copytree(Path(service.__file__).parent, code / "edge_ran" / "deploy")
    (code / "edge_ran" / "__init__.py").write_text("")

    def run(program: str, identity: str = "new", **values: object) -> tuple[Layout, int, list[str]]:
        (code / "edge_ran" / "__main__.py").write_text(program)
        if not (place.releases / identity).exists():
            make_release(place, identity, code=str(code), model="m.tflite", **values)
            place.switch(identity)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(tmp_path / "notify"))
            environment = {
                **os.environ, "PYTHONPATH": str(code), "NOTIFY_SOCKET": str(tmp_path / "notify"),
            }  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-m", "edge_ran.deploy.service", home], env=environment, timeout=60, check=False
            )
            systemd.setblocking(False)
            told = []
            try:
                while True:
                    told.append(systemd.recv(100).decode())
            except BlockingIOError:
                (tmp_path / "notify").unlink()
        return place, done.returncode, told

    return run


RESULTS = """
import json, sys, time
for index in range({count}):
    stages = {{"inference": 1.0 + index, "end_to_end": 2.0}}
    line = {{"index": 2 * index, "label": "red", "score": 0.5, "changed": index == 0, "stages_ms": stages}}
    print(json.dumps(line), flush=True)
    time.sleep({pause})
{end}
"""


def test_a_service_that_works_is_confirmed_and_tells_its_numbers(serve, tmp_path: Path):
    place, code, told = serve(RESULTS.format(count=30, pause=0.1, end=""))
    assert code == 0
    assert told[0] == "READY=1"
    assert "WATCHDOG=1" in told
    assert place.confirmed_id() == "new"
    live = layout.read_json(tmp_path / "edge-ran" / "live.json")
    assert live["state"] == "running"
    assert live["answer"] == "red"
    assert live["dropped"] > 0
    assert live["frames_per_s"] == pytest.approx(9, rel=0.5)
    assert live["inference_ms"]["p50"] >= 1
    assert [event["kind"] for event in map(json.loads, layout.last_lines(place.events, 9))] == [
        "start", "answer", "confirmed", "end"
    ]  # fmt: skip


def test_a_release_that_never_works_is_exchanged_after_three_failures(serve):
    place, code, _ = serve(RESULTS.format(count=30, pause=0.1, end=""), "old")
    assert code == 0
    crash = "import os, signal, sys; print('boom', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    for count in (1, 2, 3):
        assert place.current_id() == ("old" if count == 1 else "new")
        place, code, _ = serve(crash, "new")
        assert code == 1
    assert place.current_id() == "old"
    kinds = [json.loads(line)["kind"] for line in layout.last_lines(place.events, 20)]
    assert kinds.count("failure") == 3
    assert "it crashed (signal 11)" in layout.last_lines(place.events, 2)[0]
    assert "boom" in layout.last_lines(place.log, 5)[-1]


def test_a_release_that_worked_is_kept_however_often_it_fails(serve):
    place, _, _ = serve(RESULTS.format(count=30, pause=0.1, end="sys.exit(3)"), "one")
    for _ in range(2):
        serve("import sys; sys.exit(3)", "one")
    assert place.current_id() == place.confirmed_id() == "one"
    assert place.read_failures() == ("one", 3, "it ended with status 3")


RECORDS = """
import json, os, time
options = json.loads(os.environ["EDGE_RAN_WORDS"])
folder = next(word for word in options if word.startswith("--record=")).partition("=")[2] + "/red/clip"
os.makedirs(folder, exist_ok=True)
for index in range(60):
    with open(f"{folder}/{index:06d}.jpg", "wb") as file:
        file.write(bytes(1000))
    print(json.dumps({"index": index, "label": "red", "score": 0.5, "stages_ms": {}}), flush=True)
    time.sleep(0.05)
"""


def test_records_are_bounded_and_the_oldest_go(serve):
    place, code, _ = serve(RECORDS, record="all", record_limit_bytes=10_000)
    assert code == 0
    kept = sorted(path.name for path in place.records.rglob("*.jpg"))
    assert len(kept) < 40
    assert kept[-1] == "000059.jpg"
    assert kept[0] != "000000.jpg"


@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd; Debian: apt install openssh-server")
def test_a_board_without_systemd_is_refused_and_unchanged(edge_ran, labelled_model, tmp_path: Path, monkeypatch):
    folder = tmp_path / "sshd"
    folder.mkdir()
    server = Sshd(folder)
    try:
        monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(server.config))
        python = tmp_path / "python"  # whose user has no systemd
        where = f"XDG_RUNTIME_DIR={tmp_path}/none XDG_DATA_HOME={tmp_path}/data"
        python.write_text(f'#!/bin/sh\n{where} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        toml = tmp_path / "old.toml"
        toml.write_text(
            f'summary = "old"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://127.0.0.1:{server.port}"\n'
            f'python = "{python}"\n'
        )
        done = edge_ran("deploy", labelled_model(), "--device", toml)
        assert done.code == 3
        assert "cannot keep a service running" in done.stdout
        assert "edge-ran run MODEL --device old" in done.stdout
        assert not (tmp_path / "data").exists()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("ends", "max_failures", "expected", "code"),
    [
        ("deployed deployed deployed", 0, "deployed deployed deployed", 0),
        ("refused deployed deployed", 0, "refused skipped skipped", 1),
        ("refused deployed deployed", 1, "refused deployed deployed", 1),
        ("failed deployed deployed", 0, "failed deployed deployed", 3),
        ("deployed lost deployed", 0, "deployed lost deployed", 3),
        ("deployed unchanged rolled_back", 0, "deployed unchanged rolled_back", 1),
    ],
)
def test_one_board_first_and_no_further_when_it_fails(ends, max_failures, expected, code, labelled_model, monkeypatch):
    given = dict(zip("abc", (end.replace("_", " ") for end in ends.split()), strict=True))

    def deploy_one(device, spec, plan, answers, say):
        assert answers.stat().st_size > 100
        return rollout.Outcome(device, given[device])

    monkeypatch.setattr(rollout, "deploy_one", deploy_one)
    boards = [(name, DeviceSpec(name, name, "cpu", "int8", target=f"ssh://{name}")) for name in "abc"]
    found = rollout.deploy(boards, Plan(labelled_model()), lambda text: None, max_failures=max_failures)
    assert [one.end.replace(" ", "_") for one in found.boards] == expected.split()
    assert found.exit_code == code


def test_the_gate_is_agreement_and_the_budget_of_option_or_device(labelled_model):
    device = DeviceSpec("b", "b", "cpu", "int8", target="ssh://b", latency_budget_ms=5)
    right = Agreement(pictures=16, top1=1.0, largest_difference=0.0, relative_error=0.0, answers_range=1.0)
    fast = Acceptance(right, LatencyStats.from_ms([4.0] * 20), Accelerator("cpu", "cpu"))
    slow = dataclasses.replace(fast, latency=LatencyStats.from_ms([6.0] * 20))
    wrong = dataclasses.replace(fast, agreement=dataclasses.replace(right, top1=0.9))
    plan = Plan(labelled_model())
    gate(plan, device, fast)
    with pytest.raises(GateError, match="takes 6 ms, more than 5 ms"):
        gate(plan, device, slow)
    gate(dataclasses.replace(plan, max_latency_ms=7.0), device, slow)
    gate(dataclasses.replace(plan, max_latency_ms=0.0), device, slow)
    with pytest.raises(GateError, match="answers otherwise"):
        gate(plan, device, wrong)
    gate(dataclasses.replace(plan, min_agreement=0.9), device, wrong)


def test_a_release_is_named_by_all_that_it_is(labelled_model, tmp_path: Path):
    answers = tmp_path / "answers.npz"
    names = set()
    hostile = DeviceSpec("b", "b", "cpu", "int8", target="ssh://b", camera="--web=0.0.0.0:80 rtsp://u:secret@h/x")
    for plan in (
        Plan(labelled_model("int8")),
        Plan(labelled_model("float32")),
        Plan(labelled_model("int8"), {"threshold": 0.5}),
        Plan(labelled_model("int8"), record="all"),
    ):
        record_answers(plan, answers)
        with new_payload() as payload:
            one = pack(plan, hostile, answers, "", payload)
            again = pack(plan, hostile, answers, "", new_payload())
        assert one.identity == again.identity
        assert f"--camera={hostile.camera}" in one.words  # one word, which is no option of its own
        assert "secret" not in "".join(one.shown_words)
        names.add(one.identity)
    assert len(names) == 4


@pytest.mark.parametrize(
    "name", ["../x/y.jpg", "a/../y.jpg", "/etc/x/y.jpg", "a/b", "a/b/c/d.jpg", "a\\..\\b/c/d.jpg", "\x1b[2Ja/..//c.jpg"]
)
def test_a_board_cannot_write_elsewhere_here(name: str, tmp_path: Path):
    with pytest.raises(EnvironmentMissing, match="has a picture with an invalid name"):
        fetch._place(tmp_path, "board", name)
    assert fetch._place(tmp_path, "b/x", "red/c1/1.jpg") == tmp_path / "red" / "b_x-c1" / "1.jpg"


@pytest.mark.parametrize("path", ["/home/pi", "/home/a b", '/home/q"x', "/home/100%", "/home/$x\\y"])
def test_a_home_of_any_name_stands_in_a_unit(path: str):
    quoted = board_side._for_systemd(path)
    assert quoted.replace("%%", "%").replace("$$", "$").replace('\\"', '"').replace("\\\\", "\\") == path
    with pytest.raises(OSError, match="cannot stand"):
        board_side._for_systemd("/home/x\nExecStart=/bin/evil")


def test_what_cannot_be_deployed(edge_ran, labelled_model):
    for words, told in (
        (("deploy", labelled_model()), "no board is named"),
        (("deploy", labelled_model(), "--device", "local"), "not a board over ssh"),
        (("deploy", labelled_model(), "--device", "ssh://x", "--record", "some"), "--record some is unknown"),
        (("status",), "nothing was deployed"),
        (("rollback",), "no board is named"),
    ):
        done = edge_ran(*words)
        assert done.code == 2, done
        assert told in done.stderr


# On a real board.


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    if why := systemd_board.missing():
        pytest.skip(why)
    with Board(tmp_path_factory.mktemp("board"), "one") as made:
        yield made


@pytest.fixture(scope="module")
def camera() -> Iterator[MjpegServer]:
    """A camera that shows red; its address may hold a password."""
    pictures = [jpeg(np.roll(colours.frame("red", 64, 64), shift, axis=1)) for shift in range(16)]
    with MjpegServer(lambda number: pictures[number % 16], fps=15) as server:
        yield server


@pytest.fixture
def toml(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(board.config))
    path = tmp_path / "kitchen.toml"
    path.write_text(
        f'summary = "a board"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://127.0.0.1:{board.port}"\n'
    )
    return path


def runs(edge_ran: Callable[..., Done], toml: Path) -> Any:
    """The board's status once it classifies."""
    found: list[Any] = []

    def classifies() -> bool:
        found[:] = edge_ran("status", "--device", toml, "--json").record["boards"]
        return found[0]["trouble"] == "" and found[0]["live"]["frames"] > 0

    wait_for(classifies, 60)
    return found[0]


def build_delegate(board: Board, kind: int) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    name = f"libkind{kind}.so"
    source = TESTS / "delegates" / "delegate.c"
    subprocess.run([compiler, "-shared", "-fPIC", f"-DKIND={kind}", "-o", board.home / name, source, "-lm"], check=True)
    return f"/home/pi/{name}"


def stop_after_five(done: int, total: int) -> None:
    if done == 5:
        raise KeyboardInterrupt


@pytest.mark.board
def test_the_life_of_a_board(board: Board, camera: MjpegServer, edge_ran, labelled_model, toml: Path, tmp_path: Path):
    had = board.ssh("find ~ | sort").stdout
    source = ("--camera", camera.url)
    first = edge_ran("deploy", labelled_model("int8"), "--device", toml, *source, "--json")
    assert first.code == 0, first
    jsonschema.validate(first.record, records.schema(rollout.Rollout))
    (outcome,) = first.record["boards"]
    assert outcome["end"] == "deployed"
    assert outcome["acceptance"]["agreement"]["top1"] == 1
    told = runs(edge_ran, toml)
    assert told["release"] == outcome["release"]
    assert told["live"]["answer"] == "red"
    assert abs(told["clock_drift_s"]) < 5
    jsonschema.validate(edge_ran("status", "--json").record, records.schema(fleet.Fleet))
    assert edge_ran("deploy", labelled_model("int8"), "--device", toml, *source).stdout.startswith("kitchen: unchanged")

    # An update, with a password in its camera's address, and a page with a token.
    secret = camera.url.replace("://", "://admin:hunter2@")
    second = edge_ran(
        "deploy", labelled_model("float32"), "--device", toml, "--camera", secret, "--record", "all", "--web",
        "0.0.0.0:0", "--json",
    )  # fmt: skip
    assert second.code == 0, second
    (updated,) = second.record["boards"]
    assert updated["before"] == outcome["release"]
    runs(edge_ran, toml)
    page = edge_ran("status", "--device", toml, "--page", "--json").record["boards"][0]["page"]
    token = page.partition("token=")[2]
    assert len(token) > 10
    unit = "~/.config/systemd/user/edge-ran.service"
    shown = board.ssh(f"ps -eo args; cat {unit} ~/.local/share/edge-ran/log.txt ~/.local/share/edge-ran/events.jsonl")
    shown_here = edge_ran("status").stdout + edge_ran("logs", "--device", toml).stdout
    for text in (shown.stdout, shown_here, second.stdout, second.stderr):
        assert "hunter2" not in text
        assert token not in text
    readable = board.ssh(
        "find ~/.local/share/edge-ran -maxdepth 0 -perm /077; cat ~/.local/share/edge-ran/current/release.json"
    )
    assert readable.stdout.startswith("{")
    assert "hunter2" in readable.stdout

    # The camera is lost for a while, the program and what watches over it are killed: it comes back by itself.
    camera.kill()
    wait_for(lambda: "camera" in edge_ran("status", "--device", toml, "--json").record["boards"][0]["trouble"], 60)
    assert edge_ran("status", "--device", toml).code == 1
    camera.start()
    assert runs(edge_ran, toml)["live"]["restarts"] == 0
    board.ssh("pkill -9 -f 'edge_ran run'")
    wait_for(lambda: runs(edge_ran, toml)["live"]["restarts"] == 1, 60)
    board.ssh("pkill -9 -f deploy.service")
    wait_for(lambda: runs(edge_ran, toml)["live"]["restarts"] == 2, 60)

    # Bad updates, each of which changes nothing.
    wrong, crashes = build_delegate(board, 0), build_delegate(board, 4)
    for words, why in (
        (("--max-latency", "0.0001"), "an inference takes"),
        (("--delegate", wrong), "answers otherwise than on this machine"),
        (("--delegate", crashes), "crashed"),
        (("--camera", "http://127.0.0.1:1/nothing"), "does not classify frames"),
    ):
        bad = edge_ran("deploy", labelled_model("float32"), "--device", toml, *source, *words)
        assert bad.code == 1, bad
        assert why in bad.stdout
        assert re.search("refused|rolled back", bad.stdout)
        assert runs(edge_ran, toml)["release"] == updated["release"]

    board.power_off()
    board.start()
    assert runs(edge_ran, toml)["release"] == updated["release"]

    back = edge_ran("rollback", "--device", toml, "--json")
    assert back.code == 0, back
    assert runs(edge_ran, toml)["release"] == outcome["release"]

    recorded = edge_ran("status", "--device", toml, "--json").record["boards"][0]["recorded_files"]
    with pytest.raises(KeyboardInterrupt):  # and later it goes on where it was
        fetch.fetch(targets.resolve(str(toml)), tmp_path / "more", progress=stop_after_five)
    brought = edge_ran("fetch", tmp_path / "more", "--device", toml, "--json")
    jsonschema.validate(brought.record, records.schema(fetch.Fetched))
    assert brought.record["files"] == recorded - 5 > 0
    assert brought.record["removed"] == recorded
    assert len(list((tmp_path / "more" / "red").glob("kitchen-clip-*/*.jpg"))) == recorded
    assert edge_ran("status", "--device", toml, "--json").record["boards"][0]["recorded_files"] == 0

    gone = edge_ran("undeploy", "--device", toml)
    assert gone.code == 0, gone
    assert set(board.ssh("find ~ | sort").stdout.split()) - set(had.split()) == {wrong, crashes}
    assert "edge" not in board.ssh("systemctl --user list-units --all; ps -eo args | grep -v grep").stdout
    assert "nothing was deployed" in edge_ran("status").stderr


@pytest.mark.board
def test_a_board_that_is_off_costs_the_other_nothing(board: Board, camera: MjpegServer, edge_ran, labelled_model, toml):
    off = toml.with_name("off.toml")
    off.write_text(toml.read_text().replace(str(board.port), "1"))
    words = ("--camera", camera.url, "--json")
    done = edge_ran("deploy", labelled_model("int8"), "--device", off, "--device", toml, *words)
    assert done.code == 3
    assert [one["end"] for one in done.record["boards"]] == ["failed", "deployed"]
    assert runs(edge_ran, toml)["answers"]
    table = edge_ran("status", "--device", off, "--device", toml)
    assert table.code == 3
    assert re.search(r"^off +no answer", table.stdout, re.M)
    assert re.search(r"^kitchen +runs", table.stdout, re.M)
    assert edge_ran("undeploy", "--device", toml).code == 0


@pytest.mark.board
def test_a_power_cut_at_any_moment_of_a_deployment_leaves_a_whole_release(
    board: Board, camera: MjpegServer, edge_ran, labelled_model, toml: Path
):
    words = ["--device", str(toml), "--camera", camera.url]
    began = time.monotonic()
    assert edge_ran("deploy", labelled_model("int8"), *words).code == 0
    took = time.monotonic() - began
    moments = random.Random(os.getpid())
    for number in range(3):
        old = runs(edge_ran, toml)["release"]
        model = labelled_model(("float32", "int8")[number % 2])
        command = [sys.executable, "-m", "edge_ran", "deploy", model, *words, "--threshold", f"0.{number + 1}"]
        deploying = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        cut_after = moments.uniform(0.2, took)
        time.sleep(cut_after)
        board.power_off()
        out, _ = deploying.communicate(timeout=120)
        board.start()
        told = runs(edge_ran, toml)
        assert told["release"] == old or told["release"] in out, f"cut after {cut_after:.2f} s"
    assert edge_ran("undeploy", "--device", toml).code == 0
