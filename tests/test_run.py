"""``edge-ran run`` as users type it: a process of its own, its lines, exit codes, signals and files."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from loopback import MjpegServer, jpeg, numbered, rtsp_server, wait_for, write_clip

from edge_ran.cli import main

LABELS = "red\ngreen\nblue\n"


@pytest.fixture
def edge_ran(test_models: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run ``edge-ran run MODEL …`` to its end, in an empty folder."""
    command = _command(test_models, tmp_path)

    def run(*words: str, timeout: float = 120) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=timeout, cwd=tmp_path)

    return run


class Running:
    """A run that goes on: its lines as they come, ``out`` and ``said`` (stderr)."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        self.out: list[str] = []
        self.said: list[str] = []
        pipes = ((self.process.stdout, self.out), (self.process.stderr, self.said))
        self._readers = [threading.Thread(target=lambda p=p, to=to: to.extend(p), daemon=True) for p, to in pipes]
        for reader in self._readers:
            reader.start()

    def has_said(self, words: str) -> bool:
        return any(words in line for line in self.said)

    def end(self, number: int | None = None) -> tuple[int, list[dict], str]:
        """Send a signal, wait for the end; return exit code, NDJSON records and stderr."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join(20)
        return code, [json.loads(line) for line in self.out], "".join(self.said)


@pytest.fixture
def start(test_models: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start ``edge-ran run MODEL …`` and leave it running."""
    command = _command(test_models, tmp_path)
    running: list[Running] = []

    def popen(*words: str) -> Running:
        running.append(Running([*command, *words], tmp_path))
        return running[-1]

    yield popen
    for one in running:
        one.process.kill()


def _command(models: Path, folder: Path) -> list[str]:
    (folder / "labels.txt").write_text(LABELS)
    model = str(models / "int8.tflite")
    return [sys.executable, "-m", "edge_ran", "run", model, "--labels", str(folder / "labels.txt")]


def lines(stdout: str) -> list[dict]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_json_is_one_object_a_frame(edge_ran, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 30)
    done = edge_ran("--camera", str(clip), "--headless", "--json", "--max-frames", "20", "--top-k", "2")
    assert done.returncode == 0, done.stderr
    records = lines(done.stdout)
    assert [r["index"] for r in records] == list(range(20))
    for record in records:
        assert record["predictions"][0] == {
            "label": record["label"],
            "score": record["score"],
            "index": LABELS.split().index(record["label"]),
        }
        assert len(record["predictions"]) == 2
        assert set(record["stages_ms"]) == {"capture", "preprocess", "inference", "postprocess", "end_to_end"}
        assert set(record["accelerator"]) >= {"requested", "actual", "adapter", "is_software", "fallback_reason"}
        assert record["captured_at"] == pytest.approx(os.stat(tmp_path).st_ctime, abs=600)  # Unix time
    assert "20 frames captured = 20 classified + 0 dropped" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def attentive(labelled_model) -> Path:
    return labelled_model("attention")


def test_attention_in_lines_summary_and_recording(attentive: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 12)
    words = ["run", str(attentive), "--camera", str(clip), "--no-realtime", "--cpu", "--json"]

    def run(*more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "edge_ran", *words, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    done = run("--attention", "--save", "with.avi", "--summary", "summary.json")
    assert done.returncode == 0, done.stderr
    plain = run("--save", "without.avi", "--quiet")
    assert [r["predictions"] for r in lines(done.stdout)] == [r["predictions"] for r in lines(plain.stdout)]
    for record in lines(done.stdout):
        assert [mask["module"] for mask in record["attention"]] == ["stage1_module1", "stage2_module1"]
        for mask in record["attention"]:
            assert 0 <= mask["min"] <= mask["mean"] <= mask["max"] <= 1
            assert 0 <= mask["center"][0] <= 320
            assert 0 <= mask["center"][1] <= 240
        assert record["stages_ms"]["attention"] > 0
    assert all(r["attention"] is None and "attention" not in r["stages_ms"] for r in lines(plain.stdout))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["masks"]["masks"] == 2
    assert min(summary["masks"][key] for key in ("with_ms", "without_ms", "pairs")) > 0
    assert 0 < summary["stages_ms"]["tint"] < summary["stages_ms"]["draw"]
    assert "attention: 2 masks, inference" in done.stderr
    tinted, untouched = (cv2.VideoCapture(str(tmp_path / f"{name}.avi")).read()[1] for name in ("with", "without"))
    part = np.s_[80:120, 200:]  # of the frame, beside what is written
    assert np.abs(tinted[part].astype(int) - untouched[part]).mean() > 20


def test_attention_that_cannot_be_is_told_in_one_line(edge_ran, attentive: Path, tmp_path: Path, monkeypatch, capsys):
    clip = write_clip(tmp_path / "clip.avi", 2)
    done = edge_ran("--camera", str(clip), "--attention", "--cpu")
    assert done.returncode == 2
    assert "int8.tflite has no attention masks" in done.stderr
    assert "edge-ran convert --attention" in done.stderr
    monkeypatch.setattr(sys, "argv", ["edge-ran", "run", str(attentive), "--camera", str(clip), "--attention", "3"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--attention mean, or 1 stage1_module1, 2 stage2_module1" in capsys.readouterr().err


def test_a_readable_line_a_frame_for_people(edge_ran, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 5)
    done = edge_ran("--camera", str(clip), "--no-realtime", "--quiet")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    assert all(" ms  cpu" in line and "%" in line for line in done.stdout.splitlines())
    assert not done.stderr


def test_the_real_clip_at_its_own_pace(edge_ran, shared_data: Path) -> None:
    clip = shared_data / "clips" / "one-by-one-person-detection.mp4"
    done = edge_ran("--camera", str(clip), "--json", "--max-frames", "12")
    records = lines(done.stdout)
    assert [r["timestamp"] for r in records] == pytest.approx([n / 10 for n in range(12)], abs=0.002)
    took = records[-1]["captured_at"] - records[0]["captured_at"]
    assert took > 1.0  # never faster than its own time


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--camera", "97"], 3, "camera 97"),
        (["--camera", "nowhere.mp4"], 2, "nowhere.mp4"),
        (["--camera", "rtsp://127.0.0.1:1/cam"], 3, "does not answer"),
        (["--camera", "http://127.0.0.1:1/"], 3, "does not answer"),
        (["--camera", "labels.txt"], 2, "not a video"),
        (["--camera", "."], 2, "no pictures"),
        (["--camera", "gopher://x"], 2, "gopher"),
        (["--camera", "CLIP", "--show"], 3, "pip install opencv-python"),
        (["--camera", "CLIP", "--save", "out.gif"], 2, ".mp4"),
        (["--camera", "CLIP", "--save", "labels.txt"], 2, ".mp4"),
        (["--camera", "CLIP", "--smoothing", "1.5"], 2, "smoothing"),
        (["--camera", "CLIP", "--duration", "soon"], 2, "30s"),
        (["--camera", "CLIP", "--duration", "0"], 2, "more than 0"),
        (["--camera", "CLIP", "--save", "./clip.avi", "--force"], 2, "is what is read"),
        (["--camera", "0,1"], 2, "one at a time: --camera 0"),
        (["--camera", "CLIP", "--record", "x", "--label", "../y"], 2, "folder"),
        (["--camera", "CLIP", "--on-change", "no-such-program"], 2, "no-such-program"),
        (["--camera", "CLIP", "--width", "640"], 2, "--width"),
        (["--camera", "CLIP", "--mean", "1,2"], 2, "--mean"),
        (["--camera", "CLIP", "--no-such-option"], 2, "no-such-option"),
        (["--camera", "CLIP", "--labels", "CLIP"], 2, "is binary, not text"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    test_models: Path,
    tmp_path: Path,
    words: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "--show" in words and cv2.currentUIFramework():
        pytest.skip("this OpenCV has windows")
    clip = str(write_clip(tmp_path / "clip.avi", 2))
    command = _command(test_models, tmp_path)[3:]
    if "--labels" in words:
        command = command[: command.index("--labels")]
    command += [clip if word == "CLIP" else word for word in words]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["edge-ran", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    assert ended.value.code == code, said.err
    assert says in said.err
    assert not said.out
    assert "Traceback" not in said.err
    assert not (tmp_path / "x").exists()


def test_models_that_are_none_are_refused(edge_ran, tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "clip.avi", 2))
    (tmp_path / "bad.tflite").write_bytes(os.urandom(2000))
    (tmp_path / "empty").mkdir()
    for model in ("bad.tflite", "missing.tflite", "empty"):
        done = subprocess.run(
            [sys.executable, "-m", "edge_ran", "run", model, "--camera", clip],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 2, done.stderr
        assert model in done.stderr
        assert "Traceback" not in done.stderr


def test_save_needs_force_to_replace_and_holds_every_frame(edge_ran, tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "clip.mp4", 12, fps=10))
    words = ("--camera", clip, "--no-realtime", "--save", "out.mp4")
    assert edge_ran(*words).returncode == 0
    again = edge_ran(*words)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    assert edge_ran(*words, "--force").returncode == 0
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (12, 10)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 130)])
def test_signals_finish_the_recording_and_print_the_summary(start, tmp_path: Path, number: int, expected: int) -> None:
    with MjpegServer(lambda n: jpeg(numbered(n, 320, 240)), fps=30) as server:
        run = start("--camera", server.url, "--json", "--save", "out.mp4", "--summary", "summary.json")
        wait_for(lambda: len(run.out) >= 15, 60)
        code, records, said = run.end(number)
    assert code == expected, said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["classified"] == len(records)
    assert summary["captured"] == summary["classified"] + sum(summary["dropped"].values())
    assert summary["ended_by"] == "stop"
    assert re.search(r"\d+ frames? captured", said)
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    shapes = []
    while (read := video.read())[0]:
        shapes.append(read[1].shape)
    assert len(shapes) >= 10
    assert set(shapes) == {(240, 320, 3)}
    assert not list(tmp_path.glob(".edge-ran-*"))


def test_a_connection_that_is_cut_off_leaves_a_playable_recording(test_models: Path, tmp_path: Path) -> None:
    """ssh's end of the terminal is closed: SIGHUP comes, and nothing can be printed any more."""
    with MjpegServer(lambda n: jpeg(numbered(n, 320, 240)), fps=30) as server:
        words = [*_command(test_models, tmp_path), "--camera", server.url, "--save", "out.mp4", "--summary", "s.json"]
        child, terminal = pty.fork()
        if not child:
            os.chdir(tmp_path)
            os.execv(words[0], words)
        seen = b""
        while seen.count(b" ms ") < 15:
            seen += os.read(terminal, 1000)
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) >= 10
    assert json.loads((tmp_path / "s.json").read_text())["ended_by"] == "stop"
    assert not list(tmp_path.glob(".edge-ran-*"))


def test_a_signal_ends_a_run_whose_camera_does_not_answer(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        run = start("--camera", f"rtsp://127.0.0.1:{mute.getsockname()[1]}/cam", "--json")
        connection, _ = mute.accept()
        with connection:  # one that is let go of is closed, and the camera has answered
            assert connection.recv(1000).startswith(b"OPTIONS")
            code, records, said = run.end(signal.SIGINT)
    assert (code, records) == (130, [])
    assert "does not answer" not in said


def test_stdout_is_pure_ndjson_under_every_fault(start, tmp_path: Path) -> None:
    black = jpeg(np.zeros((120, 160, 3), np.uint8))

    def picture(n: int) -> bytes:
        if 10 <= n < 15:
            return black
        if 15 <= n < 20:
            return jpeg(numbered(n))[:300]
        return jpeg(numbered(n, *((160, 120) if n < 25 else (320, 240))))

    server = MjpegServer(picture, fps=40).start()
    run = start("--camera", server.url, "--json", "--summary", "s.json", "--frozen", "0")
    wait_for(lambda: server.sent >= 60 and len(run.out) > 20, 60)
    server.kill()
    wait_for(lambda: run.has_said("closed the connection") or run.has_said("was lost"))
    before = len(run.out)
    server.start()
    wait_for(lambda: len(run.out) > before + 10, 60)
    code, records, said = run.end(signal.SIGINT)
    server.kill()
    assert code == 130
    indices = [r["index"] for r in records]
    assert indices == sorted(set(indices))
    assert not set(indices) & set(range(10, 20))
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["captured"] == summary["classified"] + sum(summary["dropped"].values())
    assert summary["classified"] == len(records)
    assert (summary["dropped"]["black"], summary["dropped"]["corrupt"]) == (5, 5)
    assert "lost" in [gap["kind"] for gap in summary["gaps"]]
    assert said.count("black pictures") == 1


def test_rtsp_killed_and_restarted_during_a_run(start, tmp_path: Path) -> None:
    with rtsp_server() as server:
        words = ("--json", "--summary", "s.json", "--frozen", "0", "--stall", "2s", "--reconnect", "60s")
        run = start("--camera", server.url, *words)
        wait_for(lambda: len(run.out) > 10, 60)
        server.kill()
        wait_for(lambda: run.has_said("stopped") or run.has_said("nothing"), 60)
        before = len(run.out)
        server.start()
        wait_for(lambda: len(run.out) > before + 10, 60)
        _, records, said = run.end(signal.SIGTERM)
    indices = [r["index"] for r in records]
    assert indices == sorted(set(indices))
    summary = json.loads((tmp_path / "s.json").read_text())
    assert len(summary["gaps"]) == 1
    assert summary["captured"] == summary["classified"] + sum(summary["dropped"].values())
    assert said.count("is back after") == 1


def test_a_camera_lost_for_good_is_exit_3_with_the_summary(start, tmp_path: Path) -> None:
    server = MjpegServer(lambda n: jpeg(numbered(n)), fps=30).start()
    run = start("--camera", server.url, "--json", "--reconnect", "1s", "--save", "out.avi")
    wait_for(lambda: len(run.out) >= 12, 60)
    server.kill()
    code, _, said = run.end()
    assert code == 3
    assert "lost for good" in said
    assert "gap: lost" in said
    assert cv2.VideoCapture(str(tmp_path / "out.avi")).get(cv2.CAP_PROP_FRAME_COUNT) >= 5


def test_a_reader_that_has_enough_ends_the_run_quietly(test_models: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 200, fps=100)
    command = [*_command(test_models, tmp_path), "--camera", str(clip), "--json", "--save", "out.avi"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    json.loads(process.stdout.readline())
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert cv2.VideoCapture(str(tmp_path / "out.avi")).isOpened()


def test_tensorflow_is_never_imported(edge_ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.avi", 2)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    done = edge_ran("--camera", str(clip))
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "cv2" in imported
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "tf_keras", "matplotlib")}


def test_examples_recorded_become_a_dataset(edge_ran, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 4)
    for label in ("hall", "attic"):
        done = edge_ran("--camera", str(clip), "--record", "set", "--label", label, "--no-realtime")
        assert done.returncode == 0, done.stderr
        assert "4 pictures kept in set" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "edge_ran", "dataset", "set", "--json"], capture_output=True, text=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["classes"] == {"attic": 4, "hall": 4}
