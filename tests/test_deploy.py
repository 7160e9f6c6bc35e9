"""Deployments on a real board with systemd (``systemd_board``), and their parts without one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import systemd_board
from loopback import MjpegServer, jpeg, wait_for
from models import colours
from schemas import valid
from sshd import Sshd, children, command_line
from systemd_board import Board

from edge_ran import dataset, records, targets
from edge_ran.card import Overrides
from edge_ran.catalogue import DeviceSpec
from edge_ran.cli import main
from edge_ran.deploy import board as board_side
from edge_ran.deploy import boards as known_boards
from edge_ran.deploy import fetch, fleet, layout, rollout, service
from edge_ran.deploy.acceptance import Acceptance, accept
from edge_ran.deploy.layout import Layout
from edge_ran.deploy.release import Plan, Release, new_payload, pack, record_answers
from edge_ran.deploy.remote import Running, gate
from edge_ran.errors import EnvironmentMissing, GateError, InputError
from edge_ran.latency import LatencyStats
from edge_ran.runtime import Accelerator, RuntimeOptions
from edge_ran.runtime.agreement import Agreement

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
        os.utime(place.releases / name / "worked", (-number, -number))  # as if the clock had been set back
    make_release(place, "refused", contents=["c9"])
    assert place.earlier_ids() == ["r3", "r2", "r1", "r0"]
    place.prune()
    assert sorted(path.name for path in place.releases.iterdir()) == ["r2", "r3", "r4"]
    assert sorted(path.name for path in place.store.iterdir()) == ["c2", "c3", "c4"]
    (place.releases / "r4" / "release.json").unlink()
    assert place.current_id() == ""


def test_spans_and_orders_hold_whatever_happens_to_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = Layout(tmp_path / "home")
    make_release(place, "r")
    place.switch("r")
    now = time.time()
    assert place.since() == pytest.approx(now, abs=60)
    live = service.Live("r")
    live.result({"index": 0, "label": "red", "changed": True})
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    assert place.since() == pytest.approx(now - 86400, abs=60)
    told = live.to_dict(0)
    assert 0 <= told["at"] - told["answer_at"] < 60
    assert 0 <= told["at"] - told["began_at"] < 60
    place.switched.unlink()  # a reboot: now the link's own time counts, which lies in the future
    assert place.since() == 0


def test_a_disk_that_is_full_does_not_keep_an_old_count_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = Layout(tmp_path / "home")
    place.note_failures("r", 5, "why")
    assert place.read_failures() == ("r", 5, "why")
    write, full = layout.write_text, place.failures

    def fail(path: Path, text: str, is_durable: bool = True) -> None:
        if path == full:
            raise OSError(28, "No space left on device")
        write(path, text, is_durable)

    monkeypatch.setattr(layout, "write_text", fail)
    place.note_failures("r", 0, "")
    assert place.read_failures() == ("r", 0, "")
    place.failures_live.unlink()
    assert place.read_failures() == ("", 0, "")


def test_logs_are_bounded_and_the_oldest_lines_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layout, "LONGEST_LOG_BYTES", 1000)
    for number in range(500):
        layout.append(tmp_path / "log", f"line {number}\n")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000
    assert layout.last_lines(tmp_path / "log", 3) == ["line 497", "line 498", "line 499"]


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", "", "\ud800"])
def test_what_is_no_record_on_a_board_is_an_empty_one(tmp_path: Path, text: str):
    (tmp_path / "live.json").write_bytes(text.encode(errors="surrogatepass"))
    assert layout.read_json(tmp_path / "live.json") == {}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("watch at http://10.0.0.2:8080/?token=s3cret-X_", "watch at http://10.0.0.2:8080/?token=…"),
        ("rtsp://me:hunter2@10.0.0.9/x is lost", "rtsp://10.0.0.9/x is lost"),
        ("rtsp://me:a/b@c@10.0.0.9/x is lost", "rtsp://10.0.0.9/x is lost"),
        ("http://10.0.0.9/x?user=me&password=hunter2&n=1", "http://10.0.0.9/x?user=me&password=…&n=1"),
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

    def run(
        program: str, identity: str = "new", settings: dict[str, str] | None = None, **values: object
    ) -> tuple[Layout, int, list[str]]:
        (code / "edge_ran" / "__main__.py").write_text(program)
        if not (place.releases / identity).exists():
            make_release(place, identity, code=str(code), model="m.tflite", **values)
            place.switch(identity)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(tmp_path / "notify"))
            environment = {
                **os.environ, "PYTHONPATH": str(code), "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "EDGE_RAN_LONGEST_PAUSE_S": "0.05", **(settings or {}),
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
    place, code, told = serve(RESULTS.format(count=15, pause=0.1, end=""))
    assert code == 0
    assert told[0] == "READY=1"
    assert "WATCHDOG=1" in told
    assert place.confirmed_id() == "new"
    live = layout.read_json(tmp_path / "edge-ran" / "live.json")
    assert (live["state"], live["reason"]) == ("ended", "the source has ended")
    assert live["answer"] == "red"
    assert live["dropped"] > 0
    assert live["frames_per_s"] == pytest.approx(9, rel=0.5)
    assert live["inference_ms"]["p50"] >= 1
    assert [event["kind"] for event in map(json.loads, layout.last_lines(place.events, 9))] == [
        "start", "answer", "confirmed", "end"
    ]  # fmt: skip


FLICKER = """
import json, time
for index in range(60):
    label = "red" if index in (0, 1) or index > 30 else ("green", "blue")[index % 2]
    line = {"index": index, "label": label, "score": 0.5, "changed": 2 <= index <= 31 or not index, "stages_ms": {}}
    print(json.dumps(line), flush=True)
    time.sleep(0.1 if index > 1 else 1)
print(json.dumps({**line, "label": "black", "changed": True}), flush=True)
time.sleep(3.5)
"""


def test_answers_that_flicker_do_not_fill_the_log(serve):
    place, code, _ = serve(FLICKER)
    assert code == 0
    told = [
        event["text"] for event in map(json.loads, layout.last_lines(place.events, 99)) if event["kind"] == "answer"
    ]
    assert told == ["red 50%", "black 50%"]


def test_a_release_that_never_works_is_exchanged_after_three_failures(serve):
    place, code, _ = serve(RESULTS.format(count=15, pause=0.1, end=""), "old")
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
    place, _, _ = serve(RESULTS.format(count=15, pause=0.1, end="sys.exit(3)"), "one")
    for _ in range(2):
        serve("import sys; sys.exit(3)", "one")
    assert place.current_id() == place.confirmed_id() == "one"
    assert place.read_failures() == ("one", 3, "it ended with status 3")


def test_a_release_counts_as_one_that_works_while_it_is_the_one_that_runs(tmp_path: Path):
    place = Layout(tmp_path / "home")
    for name in ("old", "new"):
        make_release(place, name)
        place.switch(name)
    one = service.Service(place, "old")
    one.live.frames = service.HEALTHY_FRAMES
    one._tick(time.monotonic())  # its last second, after it was exchanged
    assert place.confirmed_id() == ""
    for _ in range(2):
        place.switch("old")
        one._tick(time.monotonic())
        assert place.is_confirmed("old")
        place.forget_worked("old")  # as a rollback does, after which the other one did not work


def test_ten_crashes_in_a_row_are_told_and_forgotten_once_it_works(serve, tmp_path: Path):
    serve(RESULTS.format(count=15, pause=0.1, end=""), "one")
    for count in range(1, 11):
        place, code, _ = serve("import os; os.abort()", "one")
        assert code == 1
        assert place.current_id() == "one"
        assert place.read_failures() == ("one", count, "it crashed (signal 6)")
        live = layout.read_json(place.live)
        assert (live["state"], live["reason"], live["restarts"]) == ("failed", "it crashed (signal 6)", count)
    place, code, _ = serve(RESULTS.format(count=15, pause=0.1, end=""), "one")
    assert code == 0
    assert layout.read_json(place.live)["frames"] == 15


def test_pauses_double_up_to_five_minutes(tmp_path: Path):
    place = Layout(tmp_path / "home")
    make_release(place, "r")
    one = service.Service(place, "r")
    assert [one._pause_s(count) for count in (0, 1, 2, 3, 9, 10, 10_000)] == [0, 1, 2, 4, 256, 300, 300]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import time; time.sleep(60)", "no result for 1 s"),
        (
            "import sys, time; print('edge-ran: no camera', file=sys.stderr, flush=True); time.sleep(60)",
            "no result for 1 s; its last words: no camera",
        ),
    ],
)
def test_a_program_that_hangs_is_ended(serve, program: str, why: str):
    place, code, _ = serve(program, settings={"EDGE_RAN_SILENT_S": "1"})
    assert code == 1
    assert place.read_failures() == ("new", 1, why)


def test_a_pause_longer_than_the_silence_that_is_allowed_does_not_end_the_next_try(serve):
    result = RESULTS.format(count=3, pause=0, end="")
    place, _, _ = serve(result)
    place.note_failures("new", 3, "no camera")
    place, code, _ = serve(result, settings={"EDGE_RAN_LONGEST_PAUSE_S": "2.5", "EDGE_RAN_SILENT_S": "2"})
    assert code == 0, place.read_failures()


LOST = """
import json, sys, time
for index in range(4):
    print(json.dumps({"index": index, "label": "red", "score": 0.5, "stages_ms": {}}), flush=True)
print("edge-ran: the camera is lost", file=sys.stderr, flush=True)
time.sleep(0.3)
print(json.dumps({"index": 4, "label": "red", "score": 0.5, "stages_ms": {}}), flush=True)
time.sleep(4)
"""


def test_a_lost_camera_is_told_although_results_come_after_the_notice(serve):
    place, code, _ = serve(LOST, settings={"EDGE_RAN_SILENT_S": "2", "EDGE_RAN_QUIET_S": "1"})
    assert code == 0
    assert ["camera", "the camera is lost"] in [
        [event["kind"], event["text"]] for event in map(json.loads, layout.last_lines(place.events, 9))
    ]
    assert place.read_failures()[1] == 0


def test_the_end_of_what_watches_over_it_is_a_failure(serve):
    """It left no state of an end behind, but the board did not start again: somebody or systemd killed it."""
    result = RESULTS.format(count=15, pause=0.1, end="")
    place, _, _ = serve(result)
    live = layout.read_json(place.live)
    layout.write_text(place.live, json.dumps({**live, "state": "running"}))
    place, code, _ = serve(result)
    assert code == 0
    assert place.read_failures() == ("new", 1, "what watches over it was killed, or hung and was ended by systemd")


def test_a_setting_that_is_no_number_is_told(serve):
    place, code, _ = serve(RESULTS.format(count=1, pause=0, end=""), settings={"EDGE_RAN_SILENT_S": "ninety"})
    assert code == 0
    told = [event["text"] for event in map(json.loads, layout.last_lines(place.events, 9))]
    assert "EDGE_RAN_SILENT_S=ninety is no positive number: it is 90" in told


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


def test_the_oldest_pictures_go_also_when_the_clock_is_set_back(tmp_path: Path):
    place = Layout(tmp_path / "home")
    make_release(place, "r", record="all", record_limit_bytes=2500)
    one, folder = service.Service(place, "r"), place.records / "red" / "clip"
    one.is_recording = True
    folder.mkdir(parents=True)
    for name, at in (("1", 5000), ("2", 6000), ("3", 1000), ("4", 1001)):  # set back between the second and the third
        (folder / f"{name}.jpg").write_bytes(bytes(1000))
        os.utime(folder / f"{name}.jpg", (at, at))
        one.bound_at = 0
        one._bound_records()
    assert sorted(path.name for path in folder.iterdir()) == ["3.jpg", "4.jpg"]


@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd; Debian: apt install openssh-server")
def test_a_board_without_systemd_is_refused_and_unchanged(edge_ran, labelled_model, tmp_path: Path, monkeypatch):
    folder = tmp_path / "sshd"
    folder.mkdir()
    server = Sshd(folder)
    try:
        monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(server.config))
        toml = server.board(tmp_path)  # whose user has no systemd
        model = labelled_model()
        done = edge_ran("deploy", model, "--device", toml)
        assert done.code == 3
        assert "cannot keep a service running" in done.stdout
        assert f"-> edge-ran run {model} --device {toml}" in done.stdout
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

    def deploy_one(device, spec, plan, answers, say, connections):
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
    gate(plan, device, fast, "b")
    with pytest.raises(GateError, match="takes 6 ms, more than 5 ms"):
        gate(plan, device, slow, "b")
    with pytest.raises(GateError, match="more than 5 ms, beside release 012345") as beside:
        gate(plan, device, slow, "b", "012345")
    assert beside.value.remedy.endswith("; to measure it alone, first: edge-ran undeploy --device b")
    gate(dataclasses.replace(plan, max_latency_ms=7.0), device, slow, "b")
    gate(dataclasses.replace(plan, max_latency_ms=0.0), device, slow, "b")
    with pytest.raises(GateError, match="answers otherwise") as refused:
        gate(plan, device, wrong, "./my.toml")
    assert refused.value.remedy == f"edge-ran verify {plan.model} --device ./my.toml"
    gate(dataclasses.replace(plan, min_agreement=0.9), device, wrong, "b")


def test_a_release_is_judged_by_the_output_that_holds_the_scores(tmp_path: Path):
    model, answers = TESTS / "models" / "two_heads.tflite", tmp_path / "answers.npz"
    record_answers(Plan(model, overrides=Overrides(labels=("dark", "bright"))), answers)  # the second output
    paths = (str(model), str(answers), "")
    release = Release("m", "0" * 64, *paths, (), (), RuntimeOptions(), "", 0, sys.executable, "", "0.1.0")
    (tmp_path / "release.json").write_text(json.dumps(records.to_dict(release)))
    assert accept(tmp_path).agreement.top1 == 1
    with np.load(answers) as file:
        other = {**file, "output1": file["output1"][..., ::-1]}
    np.savez(answers, **other)
    assert accept(tmp_path).agreement.top1 == 0


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
        with new_payload() as payload, new_payload() as another:
            one = pack(plan, hostile, answers, payload, "/usr/bin/python3")
            again = pack(plan, hostile, answers, another, "/usr/bin/python3")
        assert one.identity == again.identity
        # Another interpreter is another release: the one that runs keeps its own until the new one is accepted.
        assert dataclasses.replace(one, python="/opt/python").identity != one.identity
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


@pytest.mark.parametrize("at", [1e300, -1e300])
def test_an_impossible_time_of_a_board_is_refused_where_it_is_read(at: float):
    with pytest.raises(InputError, match=r"at is -?1e\+300"):
        records.read(fleet.Event, {"at": at, "kind": "start", "text": ""}, "it")
    told = dict.fromkeys(("release", "confirmed", "model", "model_sha256", "unit", "reason", "page"), "")
    told |= dict.fromkeys(("failures", "recorded_files", "recorded_bytes", "free_bytes"), 0)
    for other, name in (("since", "time"), ("time", "since")):
        with pytest.raises(InputError, match=rf"{name} is -?1e\+300"):
            records.read(Running, {**told, other: 0.0, name: at}, "it")


def test_what_cannot_be_deployed(edge_ran, labelled_model):
    for words, told in (
        (("deploy", labelled_model()), "no board is named"),
        (("deploy", labelled_model(), "--device", "local"), "not a board over ssh"),
        (("deploy", labelled_model(), "--device", "ssh://x", "--record", "some"), "--record some is unknown"),
        (("status",), "nothing was deployed"),
        (("rollback",), "no board is named"),
        (("logs",), "no board is named"),
        (("fetch", "more"), "no board is named"),
    ):
        done = edge_ran(*words)
        assert done.code == 2, done
        assert told in done.stderr


def test_a_board_that_does_not_answer_is_in_the_json_of_every_verb(edge_ran, labelled_model, tmp_path: Path):
    if shutil.which("ssh") is None:
        pytest.skip("no ssh client")
    off = tmp_path / "off.toml"
    off.write_text('summary = "off"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://127.0.0.1:1"\n')
    for name, *words in (("deploy", labelled_model()), ("status",), ("rollback",), ("undeploy",)):
        done = edge_ran(name, *words, "--device", off, "--json")
        assert done.code == 3, done
        (board,) = valid(name, done.stdout)["boards"]
        assert "off" in board.values(), board


def test_a_known_board_without_a_description_is_told_of_and_can_be_forgotten(edge_ran, tmp_path: Path):
    gone, wrong = tmp_path / "gone.toml", tmp_path / "wrong.toml"
    wrong.write_text("summary = ")
    for path in (gone, wrong):
        known_boards.remember(str(path))
    for verb in (("status",), ("rollback", "--all"), ("undeploy", "--all")):
        done = edge_ran(*verb)
        assert done.code == 3, done
        assert f"gone: cannot read {gone}" in done.stdout
        assert f"-> put it back, or have the board forgotten: edge-ran undeploy --device {gone}" in done.stdout
        assert f"wrong: {wrong} is not TOML" in done.stdout
    assert "is not TOML" in edge_ran("logs", "--device", "wrong").stderr
    assert "it is forgotten here" in edge_ran("undeploy", "--device", "gone").stdout
    edge_ran("undeploy", "--device", "wrong")
    assert known_boards.known() == [str(wrong)]


# On real boards.


@pytest.fixture(scope="module", autouse=True)
def starting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Future[Board]]]:
    """Two boards, which start side by side while the tests above run."""
    wanted = any(item.module is request.module and item.get_closest_marker("board") for item in request.session.items)
    if not wanted or systemd_board.missing():
        yield []
        return
    folder = tmp_path_factory.mktemp("boards")
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as off:

        def switch_on(name: str) -> Board:
            return off.enter_context(Board(folder, name))

        yield [pool.submit(switch_on, name) for name in ("one", "two")]


@pytest.fixture
def boards(starting: list[Future[Board]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, Board]:
    """Two boards that are on, by the files that describe them: ``one.toml`` and ``two.toml``."""
    if why := systemd_board.missing():
        pytest.skip(why)
    found, config = {}, tmp_path / "ssh_config"
    for board in (one.result() for one in starting):
        path = tmp_path / f"{board.name}.toml"
        path.write_text(
            f'summary = "a board"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://127.0.0.1:{board.port}"\n'
        )
        found[path] = board
    config.write_text("".join(board.config.read_text() for board in found.values()))
    monkeypatch.setenv("EDGE_RAN_SSH_CONFIG", str(config))
    return found


@pytest.fixture(scope="module")
def camera() -> Iterator[MjpegServer]:
    """A camera that shows red; its address may hold a password."""
    pictures = [jpeg(np.roll(colours.frame("red", 64, 64), shift, axis=1)) for shift in range(16)]
    with MjpegServer(lambda number: pictures[number % 16], fps=15) as server:
        yield server


def status_of(toml: Path) -> fleet.BoardStatus:
    """What `status` tells of a board, which answers."""
    (found,) = fleet.status([(str(toml), targets.resolve(str(toml)))], 20).boards
    assert found.answers, found
    return found


def live_of(toml: Path, condition: Callable[[fleet.BoardStatus, Any], object]) -> fleet.BoardStatus:
    """Wait until the board's service reports, and the condition holds for its status and what the service says."""
    found: list[fleet.BoardStatus] = []

    def holds() -> bool:
        found[:] = [status_of(toml)]
        return found[0].live is not None and bool(condition(found[0], found[0].live))

    try:
        wait_for(holds, 60, every_s=0.5)  # each question is a login, which takes a quarter of a second of a core
    except AssertionError as error:
        raise AssertionError(f"the last status: {found}") from error
    return found[0]


def runs(toml: Path, restarts: int | None = None) -> fleet.BoardStatus:
    """The board's status once it classifies, after so many restarts."""
    return live_of(toml, lambda told, live: not told.trouble and live.frames > 0 and restarts in (None, live.restarts))


def kill(board: Board, words: str, number: int = signal.SIGKILL) -> None:
    (pid,) = board.processes(words)
    os.kill(pid, number)


def start_deploying(words: Sequence[object]) -> subprocess.Popen[str]:
    """Start `deploy` as a process of its own."""
    command = [sys.executable, "-m", "edge_ran", "deploy", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def build_delegate(board: Board, kind: int) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    name = f"libkind{kind}.so"
    source = TESTS / "delegates" / "delegate.c"
    subprocess.run([compiler, "-shared", "-fPIC", f"-DKIND={kind}", "-o", board.home / name, source, "-lm"], check=True)
    return f"/home/pi/{name}"


@pytest.mark.board
def test_the_life_of_a_board(boards, camera: MjpegServer, edge_ran, labelled_model, tmp_path: Path):
    toml, board = next(iter(boards.items()))
    had = board.ssh("find ~ | sort").stdout
    source = ("--camera", camera.url)
    planned = edge_ran("deploy", labelled_model("int8"), "--device", toml, *source, "--dry-run")
    assert planned.code == 0
    assert f"--camera={camera.url}" in planned.stdout
    assert board.ssh("find ~ | sort").stdout == had
    first = edge_ran("deploy", labelled_model("int8"), "--device", toml, *source, "--json")
    assert first.code == 0, first
    valid("deploy", first.stdout)
    (outcome,) = first.record["boards"]
    assert outcome["end"] == "deployed"
    assert outcome["acceptance"]["agreement"]["top1"] == 1
    told = runs(toml)
    assert told.release == outcome["release"]
    assert told.live.answer == "red"
    assert abs(told.clock_drift_s) < 5
    assert abs(time.time() - told.since) < 60
    assert edge_ran("deploy", labelled_model("int8"), "--device", "one", *source).stdout.startswith("one: unchanged")
    unit = board.ssh("systemctl --user show edge-ran.service").stdout
    for line in ("Restart=always", "OOMPolicy=continue", "NoNewPrivileges=yes", "StartLimitIntervalUSec=0"):
        assert line in unit.splitlines()
    assert "MemoryMax=infinity" not in unit

    # An update, with a password in its camera's address, and a page with a token.
    secret = camera.url.replace("://", "://admin:hunter2@")
    second = edge_ran(
        "deploy", labelled_model("float32"), "--device", toml, "--camera", secret, "--record", "all", "--web",
        "0.0.0.0:0", "--json",
    )  # fmt: skip
    assert second.code == 0, second
    (updated,) = second.record["boards"]
    assert updated["before"] == outcome["release"]
    runs(toml)
    page = edge_ran("status", "--device", toml, "--page", "--json").record["boards"][0]["page"]
    token = page.partition("token=")[2]
    assert len(token) > 10
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(page.partition("?")[0].replace("0.0.0.0", "127.0.0.1"), timeout=10)
    visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with visitor.open(page.replace("0.0.0.0", "127.0.0.1"), timeout=10) as answer:
        assert answer.status == 200
    place = "~/.local/share/edge-ran"
    files = f"~/.config/systemd/user/edge-ran.service {place}/log.txt {place}/events.jsonl {place}/current/start"
    shown = board.ssh(f"ps -eo args; cat {files}").stdout
    assert "edge_ran run" in shown
    shown_here = edge_ran("status").stdout + edge_ran("logs", "--device", toml).stdout
    for text in (shown, shown_here, second.stdout, second.stderr):
        assert "hunter2" not in text
        assert token not in text
    readable = board.ssh(f"find {place} -maxdepth 0 -perm /077; cat {place}/current/release.json").stdout
    assert readable.startswith("{")
    assert "hunter2" in readable

    # Bad updates, each of which changes nothing.
    wrong, crashes, budget = build_delegate(board, 0), build_delegate(board, 4), tmp_path / "slow" / "one.toml"
    budget.parent.mkdir()
    budget.write_text(toml.read_text() + "latency_budget_ms = 0.0001\n")
    for words, device, end, why in (
        (source, budget, "refused", "more than 0.0001 ms"),
        ((*source, "--delegate", wrong), toml, "refused", "answers otherwise than on this machine"),
        ((*source, "--delegate", crashes), toml, "refused", "crashed"),
        (("--camera", "/dev/video77"), toml, "rolled back", "does not classify frames"),
    ):
        bad = edge_ran("deploy", labelled_model("float32"), "--device", device, *words)
        assert bad.code == 1, bad
        assert bad.stdout.startswith(f"one: {end}")
        assert why in bad.stdout
        assert runs(toml).release == updated["release"]

    board.power_off()
    board.start()
    assert runs(toml).release == updated["release"]
    assert f"from {outcome['release']} to {updated['release']}" in edge_ran("logs", "--device", toml).stdout

    back = edge_ran("rollback", "--device", toml, "--json")
    valid("rollback", back.stdout)
    assert back.code == 0, back
    assert runs(toml).release == outcome["release"]

    # What was recorded comes here, also when that is killed on the way; it is whole there or here.
    more, recorded = tmp_path / "more", status_of(toml).recorded_files
    fetching = subprocess.Popen([sys.executable, "-m", "edge_ran", "fetch", more, "--device", toml])
    wait_for(lambda: any(more.rglob("[!.]*.jpg")), 60)
    fetching.kill()
    fetching.wait()
    half = len(list(more.rglob("[!.]*.jpg")))
    brought = edge_ran("fetch", more, "--device", toml, "--json")
    valid("fetch", brought.stdout)
    assert brought.record["files"] == recorded - half
    assert len(list((more / "red").glob("one-clip-*/[!.]*.jpg"))) == recorded > 5
    assert status_of(toml).recorded_files == 0
    samples = dataset.load(more).samples  # as `train` reads it: frames of a clip stay together
    assert {sample.label for sample in samples} == {"red"}
    assert {sample.group for sample in samples} == {f"red/{clip.name}" for clip in (more / "red").iterdir()}

    valid("logs", edge_ran("logs", "--device", toml, "--json").stdout)
    gone = edge_ran("undeploy", "--device", toml, "--json")
    valid("undeploy", gone.stdout)
    assert gone.code == 0, gone
    assert set(board.ssh("find ~ | sort").stdout.split()) - set(had.split()) == {wrong, crashes}
    assert "edge" not in board.ssh("systemctl --user list-units --all; ps -eo args | grep -v grep").stdout
    assert "nothing was deployed" in edge_ran("status").stderr


@pytest.mark.board
def test_a_board_keeps_running(boards, camera: MjpegServer, edge_ran, labelled_model):
    """What may happen in months, each shortened: it comes back by itself, and `status` says why it did not run."""
    toml, board = list(boards.items())[1]
    words = (labelled_model("int8"), "--device", toml, "--camera", camera.url, "--record", "all")
    assert edge_ran("deploy", *words).code == 0
    release = runs(toml).release

    board.set_clock(-86400.0)
    told = live_of(toml, lambda told, live: told.clock_drift_s < -80000 and live.at < time.time() - 80000)
    assert (told.trouble, told.live.restarts, told.live.answer) == ("", 0, "red")
    assert 0 <= told.live.at - told.live.answer_at < 120
    assert 0 <= time.time() - told.since < 120
    assert "its clock is 86400 s behind" in edge_ran("status", "--device", toml).stdout
    frames = told.live.frames
    live_of(toml, lambda told, live: live.frames > frames and not told.trouble)
    board.set_clock(0)

    camera.kill()
    lost = live_of(toml, lambda told, live: told.trouble.startswith("camera: "))
    assert camera.url in lost.trouble
    assert edge_ran("status", "--device", toml).code == 1
    camera.start()
    assert runs(toml).live.restarts == 0

    kill(board, "-m edge_ran run")
    runs(toml, restarts=1)
    kill(board, "deploy.service", signal.SIGSTOP)  # it hangs, and systemd's watchdog ends it
    runs(toml, restarts=2)
    assert "hung and was ended by systemd" in edge_ran("logs", "--device", toml).stdout

    if systemd_board.MEMORY_GROUPS.is_dir():
        with board.short_of_memory(40):
            kill(board, "-m edge_ran run")
            told = live_of(toml, lambda told, live: live.restarts >= 12)
            assert "out of memory: the kernel ended it" in told.trouble, told
        runs(toml)
        assert status_of(toml).release == release

    filler = board.home / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    full = "the disk is nearly full: nothing is recorded"
    restarts = live_of(toml, lambda told, live: not told.trouble and live.warning == full).live.restarts
    kill(board, "-m edge_ran run")
    told = runs(toml, restarts + 1)
    assert told.live.warning == full
    filler.unlink()
    live_of(toml, lambda told, live: not told.trouble and not live.warning and told.recorded_files > 0)
    assert edge_ran("undeploy", "--device", toml).code == 0


@pytest.mark.board
def test_a_deployment_whose_network_is_lost_ends_with_a_release_that_works(
    boards, camera: MjpegServer, edge_ran, labelled_model
):
    toml = next(iter(boards))
    assert edge_ran("deploy", labelled_model("int8"), "--device", toml, "--camera", camera.url).code == 0
    for source, works in ((camera.url, True), ("/dev/video77", False)):
        old = runs(toml).release
        deploying = start_deploying((labelled_model("float32"), "--device", toml, "--camera", source))
        assert deploying.stderr is not None
        new = next(found[1] for line in deploying.stderr if (found := re.search(r"release (\w+) starts", line)))
        (ssh,) = (pid for pid in children(deploying.pid) if command_line(pid).startswith("ssh "))
        os.kill(ssh, signal.SIGKILL)
        out, _ = deploying.communicate(timeout=60)
        assert deploying.returncode == 3
        assert out.startswith(f"one: lost {new}")
        assert f"-> edge-ran status --device {toml}" in out
        ends = new if works else old
        live_of(toml, lambda told, live, ends=ends: told.release == ends and not told.trouble and live.frames > 0)
    assert "back to" in edge_ran("logs", "--device", toml).stdout
    assert edge_ran("undeploy", "--device", toml).code == 0


@pytest.mark.board
def test_a_power_cut_at_any_moment_of_a_deployment_leaves_a_whole_release(
    boards, camera: MjpegServer, edge_ran, labelled_model
):
    words = ("--camera", camera.url)
    began = time.monotonic()
    devices = [word for toml in boards for word in ("--device", toml)]
    assert edge_ran("deploy", labelled_model("int8"), *devices, *words).code == 0
    took = (time.monotonic() - began) / len(boards)
    moments, models = random.Random(os.getpid()), [labelled_model(name) for name in ("float32", "int8")]

    def cut_twice(toml: Path) -> None:
        for number, model in enumerate(models, start=1):
            old, cut_after = runs(toml).release, moments.uniform(0.2, took)
            deploying = start_deploying((model, "--device", toml, *words, "--threshold", f"0.{number}"))
            time.sleep(cut_after)
            boards[toml].power_off()
            out, _ = deploying.communicate(timeout=120)
            boards[toml].start()
            told = runs(toml)
            assert told.release == old or told.release in out, f"cut after {cut_after:.2f} s"

    with ThreadPoolExecutor(len(boards)) as pool:
        for done in [pool.submit(cut_twice, toml) for toml in boards]:
            done.result()
    assert edge_ran("undeploy", "--all").code == 0


@pytest.mark.board
def test_a_board_that_is_off_costs_the_other_nothing(
    boards, camera: MjpegServer, edge_ran, labelled_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (one, _), (two, off) = boards.items()
    words = ("--device", two, "--device", one, "--camera", camera.url)
    assert edge_ran("deploy", labelled_model("int8"), *words).code == 0
    off.power_off()
    done = edge_ran("deploy", labelled_model("float32"), *words, "--json")
    assert done.code == 3
    assert [outcome["end"] for outcome in done.record["boards"]] == ["failed", "deployed"]
    runs(one)
    found = edge_ran("status", "--json")
    assert found.code == 3
    valid("status", found.stdout)
    table = edge_ran("status").stdout
    assert re.search(r"^two +no answer$", table, re.M)
    assert "two: 127.0.0.1 refuses connections" in table
    row = next(line for line in table.splitlines() if line.startswith("one "))
    assert re.fullmatch(
        r"one +runs +[0-9a-f]{12} +float32.tflite +\d+ s +[\d.]+ +[\d.]+ +[\d.]+ +red, \d+ s +0 +\d+%( +\d+ °C)? +"
        r"[\d.]+ GB +[+-]0 s", row
    )  # fmt: skip
    with monkeypatch.context() as stranger:  # another board answers there, or an attacker
        stranger.setenv("EDGE_RAN_SSH_CONFIG", str(tmp_path / "stranger"))
        (tmp_path / "stranger").write_text("Host *\n  UserKnownHostsFile /dev/null\n  GlobalKnownHostsFile /dev/null\n")
        for verb in (("deploy", labelled_model("int8")), ("status",), ("undeploy",)):
            done = edge_ran(*verb, "--device", one)
            assert done.code == 3
            assert "the host key of 127.0.0.1 is not known" in done.stdout
    gone = edge_ran("undeploy", "--all")
    assert gone.code == 3
    assert "one: removed" in gone.stdout
    assert board_side.UNIT not in boards[one].ssh("systemctl --user list-units --all").stdout
