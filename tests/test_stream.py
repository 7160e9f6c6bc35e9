"""The pipeline, its decisions, its drawing and its recordings."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from loopback import MjpegServer, jpeg, number_of, numbered, wait_for, write_clip

from edge_ran.attention import Look
from edge_ran.camera import Frame, FrameSource, Limits, open_source
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier, Prediction
from edge_ran.dataset import load
from edge_ran.errors import CameraError, EdgeRanError, EnvironmentMissing, InputError, OutputExists, UsageError
from edge_ran.python_command import pip
from edge_ran.runtime import Accelerator
from edge_ran.stream import (
    Decider,
    Result,
    Stream,
    StreamOptions,
    lettering,
    mp4,
    outputs,
    parallel,
    pipeline,
    recording,
    run_stream,
)
from edge_ran.stream.outputs import Drawing, Examples, OnChange, Window, _folder_name
from edge_ran.stream.overlay import Overlay
from edge_ran.stream.recording import Recording

pytestmark = pytest.mark.prompt

CPU = Accelerator("cpu", "cpu")


@pytest.fixture
def classifier(test_models: Path) -> Iterator[Classifier]:
    with Classifier(test_models / "int8.tflite", overrides=Overrides(labels=("red", "green", "blue"))) as opened:
        yield opened


def coloured(label: str, width: int = 160, height: int = 120) -> np.ndarray:
    """What the test network calls red, green or blue."""
    image = np.random.default_rng(0).integers(40, 110, (height, width, 3), np.uint8)
    image[:, :, ("blue", "green", "red").index(label)] += 100
    return image


def colour_clip(path: Path, labels: list[str]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, (160, 120))
    for label in labels:
        writer.write(coloured(label))
    writer.release()
    return path


# ---------------------------------------------------------------------------------------------- pipeline


def test_every_frame_of_a_clip_is_classified_once_and_in_order(tmp_path: Path, classifier: Classifier) -> None:
    labels = ["red"] * 5 + ["green"] * 7 + ["blue"] * 4
    clip = colour_clip(tmp_path / "clip.avi", labels)
    with Stream(classifier, lambda: open_source(str(clip)), realtime=False) as stream:
        results = list(stream)
    assert [r.label for r in results] == labels
    assert [r.frame.index for r in results] == list(range(16))
    assert [r.frame.index for r in results if r.changed] == [0, 5, 12]
    for result in results:
        assert result.predictions[0] == Prediction(result.label, result.score, classifier.labels.index(result.label))
        stages = result.stages_ms
        assert set(stages) == {"capture", "preprocess", "inference", "postprocess", "end_to_end"}
        parts = stages["preprocess"] + stages["inference"]
        assert 0 < parts <= stages["end_to_end"] + 0.5
    summary = stream.summary()
    assert (summary.captured, summary.classified, summary.dropped, summary.ended_by) == (16, 16, {}, "end")
    assert summary.latency
    assert summary.latency.runs == 16
    assert summary.fps == pytest.approx(16 / summary.seconds)


def test_preparing_ahead_gives_the_same_scores_as_one_after_the_other(tmp_path: Path, classifier: Classifier) -> None:
    clip = write_clip(tmp_path / "clip.avi", 12)
    alone = [classifier.scores(frame.image) for frame in open_source(str(clip))]
    with Stream(classifier, lambda: open_source(str(clip)), realtime=False, top_k=3) as stream:
        for expected, result in zip(alone, stream, strict=True):
            assert {p.index: p.score for p in result.predictions} == pytest.approx(dict(enumerate(expected)))


def test_the_next_frames_are_captured_and_prepared_while_one_is_inferred(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every inference waits until two more frames were prepared: one after the other would never end."""
    clip = write_clip(tmp_path / "clip.avi", 12)
    prepared: list[int] = []
    inferred: list[int] = []
    prepare, infer = classifier.prepare, classifier.infer

    def counted(frame: np.ndarray) -> np.ndarray:
        prepared.append(number_of(frame))
        return prepare(frame)

    def patient(x: np.ndarray) -> np.ndarray:
        wait_for(lambda: len(prepared) >= min(12, len(inferred) + 3))
        inferred.append(len(inferred))
        return infer(x)

    monkeypatch.setattr(classifier, "prepare", counted)
    monkeypatch.setattr(classifier, "infer", patient)
    with Stream(classifier, lambda: open_source(str(clip)), realtime=False) as stream:
        assert [number_of(r.frame.image) for r in stream] == list(range(12))
    assert prepared == list(range(12))


def test_a_network_slower_than_the_camera_gets_the_newest_frame_and_the_counts_add_up(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight frames come during every inference; the last of them is the next to be classified."""
    prepare, infer = classifier.prepare, classifier.infer
    prepared: list[int] = []
    coming = 1
    server = MjpegServer(lambda n: jpeg(numbered(n)) if n < coming else None, fps=200)

    def note(frame: np.ndarray) -> np.ndarray:
        prepared.append(number_of(frame))
        return prepare(frame)

    def slow(x: np.ndarray) -> np.ndarray:
        nonlocal coming
        coming += 8
        wait_for(lambda: stream.summary().captured == coming and _newest(stream) == coming - 1)
        return infer(x)

    monkeypatch.setattr(classifier, "prepare", note)
    monkeypatch.setattr(classifier, "infer", slow)
    with server, Stream(classifier, lambda: open_source(server.url), max_frames=6) as stream:
        results = [(r.frame.index, number_of(r.frame.image)) for r in stream]
    assert results == [(index, index) for index in range(0, 48, 8)]
    summary = stream.summary()
    assert (summary.captured, summary.classified) == (49, 6)
    assert summary.dropped == {"superseded": 42, "at_end": 1}
    assert len(prepared) < 49  # those that could not be the newest were not prepared


def _newest(stream: Stream) -> int:
    """The number of the prepared frame that waits, or -1."""
    return max((prepared.frame.index for prepared in [*stream._ahead._waiting]), default=-1)


def test_what_breaks_while_preparing_is_heard(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.avi", 3)

    def broken(frame: np.ndarray) -> np.ndarray:
        raise ValueError("no room")

    monkeypatch.setattr(classifier, "prepare", broken)
    with (
        Stream(classifier, lambda: open_source(str(clip)), realtime=False) as stream,
        pytest.raises(ValueError, match="no room"),
    ):
        next(iter(stream))


def test_max_frames_and_duration_end_a_run(tmp_path: Path, classifier: Classifier) -> None:
    clip = str(write_clip(tmp_path / "clip.avi", 60, fps=30))
    with Stream(classifier, lambda: open_source(clip), realtime=False, max_frames=7) as stream:
        assert len(list(stream)) == 7
    assert (stream.summary().captured, stream.summary().ended_by) == (7, "frames")
    with Stream(classifier, lambda: open_source(clip), duration_s=0.5) as stream:
        count = len(list(stream))
    assert 1 <= count <= 17  # at most what its own pace allows
    assert stream.summary().ended_by == "duration"
    with pytest.raises(UsageError):
        Stream(classifier, lambda: open_source(clip), top_k=0)


def test_captured_is_classified_and_dropped_under_every_fault(classifier: Classifier) -> None:
    good = {label: jpeg(coloured(label)) for label in ("red", "green")}
    black, torn = jpeg(np.zeros((120, 160, 3), np.uint8)), good["red"][:200]

    def picture(n: int) -> bytes:
        return black if 10 <= n < 15 else torn if 15 <= n < 20 else good["red" if n < 30 else "green"]

    server = MjpegServer(picture, fps=60).start()
    stop = threading.Event()
    notices = []
    stream = Stream(
        classifier,
        lambda: open_source(server.url),
        limits=Limits(2, 0, 30),
        notify=notices.append,
        stop=stop,
    )
    results: list[Result] = []

    def consume() -> None:
        with stream:
            results.extend(stream)

    consumer = threading.Thread(target=consume)
    consumer.start()
    wait_for(lambda: server.sent >= 40)
    server.kill()
    wait_for(lambda: "lost" in [n.kind for n in notices])
    before = len(results)
    server.start()
    wait_for(lambda: len(results) > before + 10)
    stop.set()
    consumer.join()
    server.kill()
    summary = stream.summary()
    indices = [r.frame.index for r in results]
    assert indices == sorted(set(indices))
    assert {r.label for r in results} == {"red", "green"}
    assert summary.classified == len(results)
    assert summary.captured == summary.classified + sum(summary.dropped.values())
    assert summary.dropped["black"] == 5
    assert summary.dropped["corrupt"] == 5
    assert [gap.kind for gap in summary.gaps][-1] == "lost"
    assert summary.ended_by == "stop"


def test_a_camera_lost_for_good_keeps_its_summary(classifier: Classifier) -> None:
    server = MjpegServer(lambda n: jpeg(coloured("blue")), fps=60).start()
    with Stream(classifier, lambda: open_source(server.url), limits=Limits(2, 0, 0.3)) as stream:
        results = iter(stream)
        assert next(results).label == "blue"
        server.kill()
        with pytest.raises(CameraError):
            list(results)
    summary = stream.summary()
    assert (summary.ended_by, [gap.kind for gap in summary.gaps]) == ("fault", ["lost"])
    assert summary.captured == summary.classified + sum(summary.dropped.values())


def test_a_network_that_gives_no_numbers_is_refused(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.avi", 3)
    monkeypatch.setattr(classifier, "infer", lambda x: np.full(3, np.nan, np.float32))
    with (
        Stream(classifier, lambda: open_source(str(clip)), realtime=False) as stream,
        pytest.raises(InputError, match="not a number"),
    ):
        next(iter(stream))


# --------------------------------------------------------------------------------------------- decisions


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_without_smoothing_each_frame_stands_for_itself() -> None:
    decide = Decider()
    answers = [decide(scores(*s), t) for t, s in enumerate([(0.6, 0.4), (0.49, 0.51), (0.9, 0.1)])]
    assert [(a, changed) for _, a, changed in answers] == [(0, True), (1, True), (0, True)]


def test_smoothing_rides_over_a_wrong_frame_and_follows_a_real_change() -> None:
    decide = Decider(smoothing=0.7)
    assert decide(scores(0.9, 0.1), 0.0)[1:] == (0, True)
    smoothed, answer, changed = decide(scores(0.1, 0.9), 0.1)
    assert (answer, changed) == (0, False)
    assert smoothed == pytest.approx([0.7 * 0.9 + 0.3 * 0.1, 0.7 * 0.1 + 0.3 * 0.9])
    later = [decide(scores(0.1, 0.9), 0.1 + 0.1 * n)[1] for n in range(1, 8)]
    assert later[-1] == 1
    assert later == sorted(later)  # it changes once


def test_a_challenger_must_lead_by_the_margin() -> None:
    decide = Decider(smoothing=0.01, margin=0.2)
    decide(scores(0.55, 0.45), 0.0)
    assert decide(scores(0.45, 0.55), 0.1)[1] == 0
    assert decide(scores(0.35, 0.65), 0.2)[1] == 1


def test_unknown_under_the_threshold_and_back_with_the_margin() -> None:
    decide = Decider(smoothing=0.01, threshold=0.6, margin=0.1)
    answers = [decide(scores(p, 1 - p), 0.1 * n)[1] for n, p in enumerate([0.55, 0.65, 0.75, 0.65, 0.55])]
    assert answers == [-1, -1, 0, 0, -1]


def test_evidence_of_before_a_gap_is_forgotten() -> None:
    decide = Decider(smoothing=0.9)
    decide(scores(1.0, 0.0), 0.0)
    smoothed, answer, changed = decide(scores(0.0, 1.0), 60.0)
    assert (answer, changed) == (1, True)
    assert smoothed == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("wrong", [{"smoothing": 1.0}, {"smoothing": -0.1}, {"threshold": 1.5}])
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Decider(**wrong)


# ------------------------------------------------------------------------------------ drawing and keeping


def result(index: int = 0, label: str = "cat", score: float = 0.9, at: float = 0.0, **frame) -> Result:
    image = frame.pop("image", numbered(index, 320, 240))
    predictions = (Prediction("cat", score, 0), Prediction("dög, très long name of a class", 1 - score, 1))
    stages = dict.fromkeys(("capture", "preprocess", "inference", "postprocess", "end_to_end"), 1.0)
    return Result(Frame(image, index, at, at), predictions, label, score, frame.pop("changed", False), stages, 25.0)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (240, 320), (1080, 1920), (64, 2000), (2000, 64)])
def test_the_mask_is_drawn_with_its_scale_until_it_is_hidden(size: tuple[int, int]) -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 3] = 0.5
    looks = (Look("stage1_module1", values, (0, 0, size[1], size[0])),)
    shown = dataclasses.replace(result(image=np.full((*size, 3), 120, np.uint8)), looks=looks)
    took: list[str] = []
    overlay = Overlay(CPU, "1", lambda stage, ms: took.append(stage) if ms > 0 else None)
    picture = overlay(shown)
    plain = Overlay(CPU)(dataclasses.replace(shown, looks=()))
    height, width = picture.shape[:2]
    hot, cold = picture[height * 3 // 8, width * 7 // 8].astype(int), picture[height // 2, width * 5 // 8].astype(int)
    assert hot[2] - hot[0] > 40 > 0 > cold[2] - cold[0]  # yellow, violet
    assert picture.shape == plain.shape
    assert took == ["tint", "draw"]
    overlay.toggle()
    assert (overlay(shown) == plain).all()
    assert took == ["tint", "draw", "draw"]


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (240, 320), (1080, 1920), (64, 2000)])
def test_the_overlay_fits_pictures_of_every_size_and_leaves_the_frame_alone(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 120, np.uint8)
    picture = Overlay(CPU)(result(image=image))
    assert (image == 120).all()
    assert min(picture.shape[:2]) >= 240
    assert (picture != 120).any()
    other = Overlay(CPU)(result(image=image, score=0.2))
    assert (picture != other).any()


def labelled(*labels: str) -> Result:
    predictions = tuple(Prediction(label, 0.9 - 0.3 * place, place) for place, label in enumerate(labels))
    return dataclasses.replace(result(image=np.full((480, 640, 3), 120, np.uint8)), predictions=predictions)


def test_the_overlay_draws_other_scripts() -> None:
    if lettering.font_for("Große зал") is None:
        pytest.skip("no font here has Latin and Cyrillic letters")
    said: list[str] = []
    overlay = Overlay(CPU, complain=said.append)
    drawn = [overlay(labelled(*labels)) for labels in (("Große", "зал"), ("Grose", "зал"), ("Große", "дом"))]
    assert said == []
    assert all((one != drawn[0]).any() for one in drawn[1:])
    row = slice(480 - 20 * 4, 480 - 20 * 2 - 12)  # above the second label's bar
    assert (drawn[0][row, 20:100] > 150).any()
    assert (drawn[0][:, :400] == drawn[1][:, :400])[300:].mean() > 0.9  # the rest is the same


def test_the_overlay_says_once_which_letters_its_fonts_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_fonts", lambda text: iter(()))
    lettering.font_for.cache_clear()
    said: list[str] = []
    overlay = Overlay(CPU, complain=said.append)
    lacking = overlay(labelled("大厅", "Große"))
    assert (overlay(labelled("??", "Gro?e")) == lacking).all()
    assert len(said) == 1
    assert "no font of this machine has every letter of '大厅'" in said[0]
    assert said[0].endswith("sudo apt install fonts-noto-cjk")
    lettering.font_for.cache_clear()


def test_a_long_name_in_another_script_stays_in_its_room() -> None:
    if lettering.font_for("Ж") is None:
        pytest.skip("no font here has Cyrillic letters")
    for to_the_right in (False, True):
        picture = np.zeros((60, 400, 3), np.uint8)
        lettering.Lettering().write(picture, "Ж" * 40, 100, 40, 20, (255, 255, 255), 200, to_the_right)
        assert picture[:, 95:305].any()
        assert not picture[:, :95].any()
        assert not picture[:, 305:].any()
    lettering.Lettering().write(picture, "Ж", -5, 3, 20, (255, 255, 255), 200)  # half outside


def test_the_overlay_says_what_really_ran() -> None:
    image = np.full((480, 640, 3), 120, np.uint8)
    on_cpu = Overlay(CPU)(result(image=image))
    on_gpu = Overlay(Accelerator("gpu", "gpu", "Mali-G610"))(result(image=image))
    assert (on_cpu != on_gpu).any()


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_recording_of_a_file_has_every_frame_at_its_rate(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    recording = Recording(path, fps=12.5, live=False)
    for index in range(20):
        recording.put(result(index), lambda index=index: numbered(index, 321, 241))
    assert not path.exists()
    recording.close()
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    numbers = []
    while (read := video.read())[0]:
        numbers.append(number_of(read[1]))
    assert numbers == list(range(20))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("fps", [73.4567, 89.6312, 118.3714])
def test_a_recording_of_an_odd_rate_can_be_written(tmp_path: Path, fps: float) -> None:
    recording = Recording(tmp_path / "out.mp4", fps=fps, live=False)
    for index in range(3):
        recording.put(result(index), lambda index=index: numbered(index))
    recording.close()
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(fps, abs=0.01)


def test_a_recording_that_cannot_go_on_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name in ("never", "gone"):
        (tmp_path / name).mkdir()
    monkeypatch.setitem(recording._CODECS, ".mkv", "none")  # OpenCV cannot write it
    never = Recording(tmp_path / "never/out.mkv", fps=10, live=False)
    gone = Recording(tmp_path / "gone/out.avi", fps=10, live=False)
    whole = Recording(tmp_path / "whole.avi", fps=10, live=False)
    drawing = Drawing([never, gone, whole], Overlay(CPU), live=False, complain=said.append)
    for index in range(4):
        if index == 2:
            wait_for(lambda: gone._temporary is not None and whole.frames == 2)
            shutil.rmtree(tmp_path / "gone")  # a stick is pulled
        drawing.put(result(index, image=numbered(index)))
    with pytest.raises(EnvironmentMissing, match="cannot write"):
        drawing.close()
    assert len(said) == 2
    assert whole.frames == 4
    assert list((tmp_path / "never").iterdir()) == []


def test_a_live_recording_keeps_the_frames_clock() -> None:
    times = [*np.arange(30) * 0.1, *(60 + np.arange(20) * 0.1)]  # ten a second, and a gap of a minute

    class Writer:
        frames = 0

        def write(self, picture: np.ndarray) -> None:
            Writer.frames += 1

    recording = Recording(Path("unused.mp4"), fps=30, live=True)
    recording._open = lambda: None
    recording._interval, recording._next_at, recording._size = 0.05, times[0], (320, 240)
    recording._writer = Writer()
    for index, at in enumerate(times):
        recording.put(result(index, at=at), lambda: numbered(0, 320, 240))
    assert Writer.frames == pytest.approx(2 * 50, abs=4)  # each picture twice; the gap is not filled


def test_a_slow_beginning_does_not_set_the_rate_of_a_live_recording(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "out.avi", fps=30, live=True)
    for index in range(10):
        recording.put(result(index, at=0.1 * index + 3 * (index > 0)), lambda: numbered(0, 64, 48))
    assert recording._interval == pytest.approx(0.1)
    recording.close()


def test_a_picture_of_another_size_is_fitted_into_a_recording(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "out.avi", fps=10, live=False)
    recording.put(result(), lambda: numbered(1, 320, 240))
    recording.put(result(), lambda: np.full((100, 400, 3), 200, np.uint8))
    recording.close()
    video = cv2.VideoCapture(str(tmp_path / "out.avi"))
    video.read()
    image = video.read()[1]
    assert image.shape == (240, 320, 3)
    assert image[120].mean() > 190
    assert image[10].mean() < 10


def test_recordings_refuse_what_they_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gif"):
        Recording(tmp_path / "out.gif", 10, False)
    (tmp_path / "out.mp4").touch()
    with pytest.raises(OutputExists):
        Recording(tmp_path / "out.mp4", 10, False)
    Recording(tmp_path / "out.mp4", 10, False, force=True).close()
    assert (tmp_path / "out.mp4").stat().st_size == 0  # nothing came: nothing was replaced


def test_a_recording_ends_playable_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, free = tmp_path / "out.mp4", [1 << 30]
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    recording = Recording(path, fps=25, live=False)
    for index in range(10):
        recording.put(result(index), lambda index=index: numbered(index, 320, 240))
    free[0] = 1 << 20
    with pytest.raises(EnvironmentMissing, match="ends after 10 frames"):
        recording.put(result(10), lambda: numbered(10, 320, 240))
    recording.close()
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 10


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_recording_that_was_cut_off_is_said(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    recording = Recording(path, fps=25, live=False)
    for index in range(10):
        recording.put(result(index), lambda index=index: numbered(index, 320, 240))
    recording.frames += 10  # written, as the writer would have it
    with pytest.raises(EnvironmentMissing, match=r"holds (9|10) of 20 frames"):
        recording.close()
    assert cv2.VideoCapture(str(path)).grab()  # what is there is kept


def test_a_fault_while_drawing_ends_the_run_and_hangs_nobody() -> None:
    class Broken:
        def put(self, result: Result, picture: object) -> None:
            raise ValueError("no such colour")

        def close(self) -> None:
            pass

    drawing = Drawing([Broken()], Overlay(CPU), live=False, complain=print)

    def draw_all() -> None:
        for index in range(100):  # more than wait for the thread
            drawing.put(result(index))
        drawing.close()

    with pytest.raises(EdgeRanError, match="frame 0 failed: ValueError"):
        draw_all()


def test_slow_drawing_never_holds_a_live_stream_up_but_a_file_waits() -> None:
    class Slow:
        def __init__(self) -> None:
            self.release = threading.Event()
            self.indices: list[int] = []
            self.closed = False

        def put(self, result: Result, picture) -> None:
            self.release.wait(20)
            self.indices.append(result.frame.index)

        def close(self) -> None:
            self.closed = True

    slow = Slow()
    drawing = Drawing([slow], Overlay(CPU), live=True, complain=print)
    for index in range(50):
        drawing.put(result(index))  # would never end if it waited
    slow.release.set()
    drawing.close()
    assert slow.closed
    assert drawing.skipped == 50 - len(slow.indices) > 40
    assert slow.indices == sorted(slow.indices)

    slow = Slow()
    drawing = Drawing([slow], Overlay(CPU), live=False, complain=print)
    threading.Timer(0.1, slow.release.set).start()
    for index in range(20):
        drawing.put(result(index))
    drawing.close()
    assert slow.indices == list(range(20))


def test_examples_are_what_train_reads_clip_by_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for minute, label in enumerate(("kitchen", "hall")):
        monkeypatch.setattr(time, "strftime", lambda form, minute=minute: f"clip-20261122-12{minute:02d}00")
        keeper = Examples(tmp_path / "set", label=label)
        for index in range(3):
            keeper.put(result(index), lambda: numbered(0))
    data = load(tmp_path / "set")
    assert data.labels == ("hall", "kitchen")
    assert len(data.samples) == 6
    clips = {(sample.label, sample.group) for sample in data.samples}
    assert len(clips) == 2
    for label, group in clips:
        minute = {"kitchen": 0, "hall": 1}[label]
        assert group.startswith(f"{label}/clip-20261122-12{minute:02d}00")
    again = Examples(tmp_path / "set", label="hall")  # after a power cut, on a board without a clock
    again.put(result(0), lambda: numbered(0))
    assert sorted(len(list(clip.iterdir())) for clip in (tmp_path / "set" / "hall").iterdir()) == [1, 3]
    by_answer = Examples(tmp_path / "answers", which="changes")
    by_answer.put(result(0, "a/b", changed=True), lambda: numbered(0))
    by_answer.put(result(1, "a/b"), lambda: numbered(0))
    assert [p.parent.parent.name for p in (tmp_path / "answers").rglob("*.jpg")] == ["a_b"]
    uncertain = Examples(tmp_path / "hard", label="x", which="uncertain", least=0.7)
    for index, score in enumerate((0.95, 0.6, 0.8)):
        uncertain.put(result(index, score=score), lambda: numbered(0))
    assert [p.name for p in (tmp_path / "hard").rglob("*.jpg")] == ["000001.jpg"]
    for wrong in ({"label": "../up"}, {"label": ".."}, {"which": "some"}):
        with pytest.raises(UsageError):
            Examples(tmp_path, **wrong)


def test_a_command_runs_on_changes_without_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "note"
    script.write_text(f'#!/bin/sh\necho "$1|$2|$EDGE_RAN_LABEL|$EDGE_RAN_PREVIOUS" >> {tmp_path}/log\n')
    script.chmod(0o755)
    said: list[str] = []
    change = OnChange(f"{script} '{{label}}; rm -rf x' {{index}}", said.append)
    change.put(result(0, "cat", changed=True))
    wait_for(lambda: (tmp_path / "log").exists())
    change.put(result(1, "cat"))
    change.put(result(2, "$(dog)", changed=True))
    change.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["cat; rm -rf x|0|cat|", "$(dog); rm -rf x|2|$(dog)|cat"]
    assert not said


def test_a_slow_command_misses_all_but_the_newest_change_and_a_failing_one_is_said_once(tmp_path: Path) -> None:
    script = tmp_path / "slow"
    script.write_text(f'#!/bin/sh\necho "$EDGE_RAN_INDEX" >> {tmp_path}/log\nsleep 0.5\nexit 7\n')
    script.chmod(0o755)
    said: list[str] = []
    change = OnChange(str(script), said.append)
    change.put(result(0, changed=True))
    wait_for(lambda: (tmp_path / "log").exists())
    for index in range(1, 9):
        change.put(result(index, changed=True))
    change.close()
    assert (tmp_path / "log").read_text().split() == ["0", "8"]
    assert said == [f"--on-change {script} ended with 7"]
    for wrong in ("", "no-such-program-here x", "'unbalanced"):
        with pytest.raises(UsageError):
            OnChange(wrong, said.append)


def test_a_command_that_does_not_end_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "LONG_S", 0.2)
    said: list[str] = []
    change = OnChange("sleep 1", said.append)
    for index in range(40):
        change.put(result(index, changed=True))
        time.sleep(0.02)
    change.close()
    assert said == ["--on-change sleep runs for more than 0 s: no other is started until it ends"]


@pytest.mark.parametrize(
    "command", ["sh -c 'echo {label}'", "env sh -ec 'echo {previous}'", f"{sys.executable} -c 'print({{label}})'"]
)
def test_a_label_is_never_a_part_of_a_program(command: str) -> None:
    """A model's file may call a class ``$(rm -r ~)``."""
    with pytest.raises(UsageError, match="would run what a label says") as caught:
        OnChange(command, print)
    assert "sh -c 'echo \"$EDGE_RAN_" in caught.value.remedy
    OnChange(f"{sys.executable} -c 'pass' {{label}}", print).close()
    OnChange(caught.value.remedy.partition(": ")[2], print).close()


def test_a_headless_opencv_or_no_screen_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ran.errors import EnvironmentMissing

    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    with pytest.raises(EnvironmentMissing) as caught:
        Window("x")
    assert caught.value.remedy == pip("install opencv-python")
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(EnvironmentMissing, match="screen"):
        Window("x")


@pytest.mark.parametrize("key", [ord("q"), 27, -1])
def test_q_escape_and_closing_it_end_a_run_with_a_window(
    key: int, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: key if len(shown) >= 3 else -1)

    def visible(title: str, what: int) -> float:
        if key == -1 and len(shown) >= 3:
            raise cv2.error("NULL guiReceiver")  # what Qt says once its last window was closed
        return 1.0

    monkeypatch.setattr(cv2, "getWindowProperty", visible)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(np.empty(0)))
    clip = write_clip(tmp_path / "clip.avi", 100, fps=50)
    stop = threading.Event()
    stream = Stream(classifier, lambda: open_source(str(clip)), stop=stop)
    seen: list[Result] = []
    run_stream(stream, CPU, StreamOptions(show=True), stop=stop, on_result=seen.append, complain=print)
    assert stream.summary().ended_by == "stop"
    assert 3 <= len(seen) < 100
    assert shown[0].shape == (240, 320, 3)
    assert shown[-1].size == 0  # the window was closed


def test_a_hides_the_mask_in_the_window_and_shows_it_again(
    labelled_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = iter([*[-1] * 10, ord("a"), *[-1] * 30, ord("a"), *[-1] * 30, ord("q")])
    pressed: list[int] = []
    tinted: list[tuple[int, bool]] = []
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: tinted.append((len(pressed), is_tinted(picture))))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: pressed.append(key := next(keys)) or key)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, what: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)

    def is_tinted(picture: np.ndarray) -> bool:
        part = cv2.resize(picture[80:120, 200:], (6, 2), interpolation=cv2.INTER_AREA).astype(int)
        return bool(np.ptp(part, axis=2).mean() > 20)  # the clip's noise is grey on the whole

    clip, stop = write_clip(tmp_path / "clip.avi", 200, fps=50), threading.Event()
    with Classifier(labelled_model("attention"), attention=True) as looking:
        stream = Stream(looking, lambda: open_source(str(clip)), realtime=False, stop=stop)
        run_stream(stream, CPU, StreamOptions(show=True), stop=stop, on_result=lambda result: None, complain=print)
    # Pictures that were drawn before a key was pressed may still be shown a little later.
    assert all(seen for turn, seen in tinted if turn <= 10)
    assert not any(seen for turn, seen in tinted if 25 <= turn <= 40)
    assert all(seen for turn, seen in tinted if turn >= 56)
    assert len(tinted) > 60


def test_a_window_answers_while_the_camera_is_gone(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: None)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, what: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    server = MjpegServer(lambda n: jpeg(numbered(n)), fps=50)
    stop = threading.Event()
    lost = threading.Event()
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord("q") if lost.is_set() else -1)
    with server:
        stream = Stream(classifier, lambda: open_source(server.url), stop=stop, notify=lambda notice: lost.set())

        def first(result: Result) -> None:
            server.kill()

        run_stream(
            stream, CPU, StreamOptions(show=True), stop=stop, on_result=first, complain=print
        )  # ends, without a signal
    assert stream.summary().ended_by == "stop"


def test_a_recording_is_finished_whatever_ends_the_run(tmp_path: Path, classifier: Classifier) -> None:
    clip = write_clip(tmp_path / "clip.avi", 30, fps=200)
    stream = Stream(classifier, lambda: open_source(str(clip)), realtime=False)

    def fail_at_ten(result: Result) -> None:
        if result.frame.index == 10:
            raise CameraError("lost")

    with pytest.raises(CameraError):
        run_stream(
            stream,
            CPU,
            StreamOptions(save=tmp_path / "out.mp4"),
            stop=threading.Event(),
            on_result=fail_at_ten,
            complain=print,
        )
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 10


def test_finishing_the_outputs_is_no_part_of_the_time(tmp_path: Path, classifier: Classifier) -> None:
    clip = write_clip(tmp_path / "clip.avi", 3)
    stream = Stream(classifier, lambda: open_source(str(clip)), realtime=False)
    ended: list[bool] = []
    wishes = StreamOptions(record=tmp_path / "kept")

    def complain(line: str) -> None:
        ended.append(stream._tally._ended_at is not None)

    run_stream(stream, CPU, wishes, stop=threading.Event(), on_result=print, complain=complain)
    assert ended == [True]


def test_a_driver_is_asked_for_no_longer_patience_than_it_can_have(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def open_it(*words: object, timeout_s: float) -> FrameSource:
        raise Asked(timeout_s)

    monkeypatch.setattr(pipeline, "open_source", open_it)
    for stall_s, wanted_s in ((5, 6), (600 * 3600, 86_401), (np.inf, 86_401)):
        with pytest.raises(Asked) as caught:
            Stream(classifier, "rtsp://camera/1", limits=Limits(stall_s=stall_s))
        assert caught.value.args == (wanted_s,)


def test_the_rate_settles_on_the_sources(classifier: Classifier) -> None:
    with MjpegServer(lambda n: jpeg(numbered(n)), fps=20) as server:
        began = time.monotonic()
        with Stream(classifier, lambda: open_source(server.url), max_frames=20) as stream:
            rates = [r.fps for r in stream]
        took = time.monotonic() - began
    assert rates[0] == 0.0
    assert rates[-1] > 0.8 * 20 / took  # all of the time counts; only the start is not in the rate


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from edge_ran.stream.recording import Recording
recording = Recording(Path(sys.argv[1]), fps=12.5, live=False)
noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
result = SimpleNamespace(frame=SimpleNamespace(captured_at=0.0))
for index in range(150):
    picture = noise.copy()
    picture[:, :160] = index
    recording.put(result, lambda: picture)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4", ".mov"])
def test_the_recording_of_a_killed_run_is_playable_after_the_next_run(tmp_path: Path, suffix: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / f"out{suffix}")], stderr=subprocess.DEVNULL)
    assert len(list(tmp_path.glob(".edge-ran-*"))) == 1
    (recovered,) = Recording(tmp_path / "next.avi", 10, live=False).recovered
    assert [path.name for path in tmp_path.iterdir()] == [recovered.name]
    assert recovered.suffix == suffix
    clip = cv2.VideoCapture(str(recovered), cv2.CAP_FFMPEG)
    assert clip.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    shades = []
    while (read := clip.read())[0]:
        assert read[1].shape == (240, 320, 3)
        shades.append(float(read[1][:, 20:140].mean()))
    assert len(shades) >= 75  # a cluster of MKV has up to five seconds
    assert max(abs(shade - index) for index, shade in enumerate(shades)) < 4
    if suffix in (".mp4", ".mov"):
        assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == len(shades)
        clip.set(cv2.CAP_PROP_POS_FRAMES, 50)
        assert abs(float(clip.read()[1][:, 20:140].mean()) - 50) < 4  # its key frames are found


def test_what_is_no_unfinished_mp4_is_left_as_it_is(tmp_path: Path) -> None:
    like = tmp_path / "like.mp4"
    whole = Recording(like, fps=10, live=False)
    for index in range(5):
        whole.put(result(index), lambda index=index: numbered(index, 320, 240))
    whole.close()
    data = like.read_bytes()
    for name, content in {
        "whole": data,
        "empty": b"",
        "short": b"\0\0\0\x08free\0\0\0\0mdat",
        "noise": bytes(range(256)) * 20,
        "loops": b"\0\0\0\0free" * 3,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert mp4.finish(tmp_path / name, like) == 0
        assert (tmp_path / name).read_bytes() == content
    assert mp4.finish(like, tmp_path / "noise") == 0
    unfinished = data[: data.index(b"moov") - 4].replace(data[36:44], b"\0\0\0\0mdat")
    (tmp_path / "cut.mp4").write_bytes(unfinished[:-5])
    assert mp4.finish(tmp_path / "cut.mp4", like) == 4  # the last one may be half there
    assert cv2.VideoCapture(str(tmp_path / "cut.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_recording_that_nothing_can_be_made_of_is_removed(tmp_path: Path) -> None:
    for name in (".edge-ran-320x240at10.0-abcdefgh.mp4", ".edge-ran-abcdefgh.mp4", ".edge-ran-9x9at0.0-abcdefgh.mov"):
        (tmp_path / name).write_bytes(b"\0\0\0\x08free\0\0\0\0mdat" + bytes(1000))
    assert Recording(tmp_path / "next.avi", 10, live=False).recovered == ()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_recording_and_not_the_run(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 30]
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    clip = write_clip(tmp_path / "clip.avi", 40, fps=200)
    stream = Stream(classifier, lambda: open_source(str(clip)), realtime=False)
    seen, said = [], []

    def fill_at_ten(result: Result) -> None:
        seen.append(result.frame.index)
        if result.frame.index == 10:
            free[0] = 1 << 20

    wishes = StreamOptions(save=tmp_path / "out.mp4")
    with pytest.raises(EnvironmentMissing, match="is full: its recording ends after"):
        run_stream(stream, CPU, wishes, stop=threading.Event(), on_result=fill_at_ten, complain=said.append)
    assert seen == list(range(40))
    assert said[0].endswith("; the run goes on without it")
    frames = cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)
    assert 5 <= frames <= 10
    assert said[1] == f"{frames:.0f} frames recorded in {tmp_path / 'out.mp4'}"


def test_a_label_names_no_other_folder() -> None:
    for label, name in (
        ("..", "_"),
        (".", "_"),
        ("a/b", "a_b"),
        ("a\0b", "ab"),
        ("..\\x", ".._x"),
        ("", "_"),
        ("x.", "x"),
    ):
        assert _folder_name(label) == name


# ------------------------------------------------------------------------------------ frames in parallel


@pytest.mark.parametrize("several", [2, 3])
def test_frames_in_parallel_give_the_same_results_in_the_same_order(
    tmp_path: Path, classifier: Classifier, several: int
) -> None:
    clip = write_clip(tmp_path / "clip.avi", 40)

    def results(count: int) -> list[tuple[int, list[Prediction]]]:
        with Stream(classifier, clip_of(clip), realtime=False, parallel=count, decide=Decider(0.5)) as stream:
            given = [(r.frame.index, list(r.predictions)) for r in stream]
        summary = stream.summary()
        assert (summary.captured, summary.classified, summary.dropped) == (40, 40, {})
        assert (summary.parallel, summary.ended_by) == (count, "end")
        assert set(summary.stages_ms) == {"capture", "preprocess", "inference", "postprocess", "end_to_end"}
        return given

    assert results(several) == results(1)


def clip_of(path: Path) -> Callable[[], FrameSource]:
    return lambda: open_source(str(path))


def test_frames_in_parallel_are_inferred_at_the_same_time(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two inferences wait for each other: one after the other would never end."""
    meeting = threading.Barrier(2, timeout=20)
    infer = Classifier.infer

    def together(self: Classifier, x: np.ndarray) -> np.ndarray:
        meeting.wait()
        return infer(self, x)

    monkeypatch.setattr(Classifier, "infer", together)
    clip = write_clip(tmp_path / "clip.avi", 12)
    with Stream(classifier, clip_of(clip), realtime=False, parallel=2) as stream:
        assert [number_of(r.frame.image) for r in stream] == list(range(12))


def test_a_consumer_slower_than_the_camera_gets_the_newest_frame(classifier: Classifier) -> None:
    """Eight frames come while the consumer is away."""
    coming = 1
    server = MjpegServer(lambda n: jpeg(numbered(n)) if n < coming else None, fps=200)
    seen = []
    with server, Stream(classifier, lambda: open_source(server.url), parallel=2, max_frames=6) as stream:
        for result in stream:
            seen.append(number_of(result.frame.image))
            coming += 8
            wait_for(lambda: stream.summary().captured == coming)  # noqa: B023 - it is called at once
    assert seen == list(range(0, 48, 8))
    summary = stream.summary()
    assert (summary.captured, summary.classified) == (49, 6)
    assert sum(summary.dropped.values()) == 43


def test_a_failure_of_one_of_several_is_heard_in_its_place(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Classifier.prepare

    def broken(self: Classifier, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if number_of(frame) == 5:
            raise InputError("frame 5 cannot be prepared")
        return prepare(self, frame, out)

    monkeypatch.setattr(Classifier, "prepare", broken)
    clip, seen = write_clip(tmp_path / "clip.avi", 12), []
    with (
        Stream(classifier, clip_of(clip), realtime=False, parallel=2) as stream,
        pytest.raises(InputError, match="frame 5"),
    ):
        seen.extend(number_of(r.frame.image) for r in stream)
    with Stream(classifier, clip_of(clip), realtime=False, parallel=2, max_frames=3) as stream:
        assert len(list(stream)) == 3
    assert (stream.summary().captured, stream.summary().ended_by) == (3, "frames")


def test_how_many_frames_in_parallel_follows_from_what_threads_gain(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_ms = 1.0
    monkeypatch.setattr(parallel, "available_cores", lambda: 4)
    monkeypatch.setattr(parallel, "_inference_ms", lambda asked, x: one_ms if asked.options.threads == 1 else 1.0)

    def count(live: bool, asked: int = 0) -> int:
        opened = parallel.workers(classifier, asked, live=live)
        for one in opened:
            one.close()
        assert {one.options.threads for one in opened} <= {1, 2}
        return len(opened)

    assert (count(live=True), count(live=False)) == (4, 4)
    one_ms = 2.0  # four threads halve the time: the newest answer would come later, but four cores do more in sum
    assert (count(live=True), count(live=False)) == (0, 4)
    one_ms = 3.9
    assert (count(live=True), count(live=False)) == (0, 0)
    assert (count(live=True, asked=1), count(live=True, asked=2)) == (0, 2)


def test_frames_in_parallel_are_refused_where_they_are_not_possible(test_models: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 3)
    with Classifier(test_models / "int8.tflite") as classifier, pytest.raises(UsageError, match="from 0 to 64"):
        Stream(classifier, clip_of(clip), parallel=65)
    with Classifier(test_models / "int8.tflite") as classifier:
        classifier.attention = True
        with pytest.raises(UsageError, match="not possible with --attention"):
            Stream(classifier, clip_of(clip), parallel=2)
