"""`edge-ran run`."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    AcceleratorName,
    Cpu,
    Delegate,
    DelegateOption,
    Device,
    Force,
    Gpu,
    GpuPrecision,
    Install,
    NoFallback,
    Quiet,
    Threads,
    Verbose,
    announce,
    app,
    given,
    parse_seconds,
    runtime_options,
    say,
    suited,
    talk,
    tflite_or_default,
)
from edge_ran.cli.options import parse_triple
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.targets import Order


Camera = Annotated[
    str,
    typer.Option("--camera", metavar="SOURCE", help="0, /dev/video0, csi://0, rtsp://…, http://…, a video, a folder."),
]


@app.command()
def run(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(help="A .tflite or a run folder.", show_default="newest run, else the shipped one")
    ] = None,
    device: Device = "local",
    install: Install = False,
    camera: Camera = "0",
    width: Annotated[int, typer.Option(min=0, help="Camera mode, pixels; 0 = the camera's own.")] = 0,
    height: Annotated[int, typer.Option(min=0, help="Camera mode, pixels; 0 = the camera's own.")] = 0,
    fps: Annotated[float, typer.Option(min=0, help="Rate of the camera, or to play at; 0 = its own.")] = 0.0,
    realtime: Annotated[bool, typer.Option(help="Play files at their own pace, or as fast as possible.")] = True,
    top_k: Annotated[int, typer.Option(min=1, help="Predictions of a frame.")] = 3,
    threshold: Annotated[float, typer.Option(help='Below this score the answer is "unknown".')] = 0.0,
    smoothing: Annotated[float, typer.Option(help="Share of the past in each answer, 0 to 1; steadies it.")] = 0.0,
    max_frames: Annotated[int, typer.Option(min=0, help="Stop after so many results; 0 = go on.")] = 0,
    duration: Annotated[str, typer.Option(metavar="TIME", help="Stop after so long: 30s, 5m, 2h.")] = "forever",
    reconnect: Annotated[str, typer.Option(metavar="TIME", help="Try so long to get a lost camera back.")] = "30s",
    stall: Annotated[str, typer.Option(metavar="TIME", help="A live source silent for so long has stalled.")] = "5s",
    frozen: Annotated[
        str, typer.Option(metavar="TIME", help="The same live picture for so long is frozen; 0 = it may stand still.")
    ] = "10s",
    show: Annotated[bool, typer.Option("--show/--headless", help="Open a window; q or Esc ends.")] = False,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Record the annotated video (.mp4, .avi).")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep frames as pictures that train reads.")
    ] = None,
    label: Annotated[str, typer.Option(help="Class of what is recorded.", show_default="the answer")] = "",
    keep: Annotated[str, typer.Option(metavar="all|changes|uncertain", help="Which frames to record.")] = "all",
    on_change: Annotated[
        str, typer.Option(metavar="COMMAND", help="Run it, without a shell, when the answer changes; {label} {score}.")
    ] = "",
    web: Annotated[
        str, typer.Option(metavar="[HOST:PORT]", help="Serve a live page, on 127.0.0.1:8080 unless told otherwise.")
    ] = "",
    attention: Annotated[
        str,
        typer.Option(
            metavar="[mean|1|2|…]",
            help="Draw where the network looks: the mean of its soft masks, or one; key a hides.",
        ),
    ] = "",
    summary: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the summary as JSON.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="The model's classes, one a line.")] = None,
    mean: Annotated[str, typer.Option(metavar="R,G,B", help="Takes the place of the card's, 0..255.")] = "",
    std: Annotated[str, typer.Option(metavar="R,G,B", help="Takes the place of the card's, 0..255.")] = "",
    accelerator: AcceleratorName = "auto",
    cpu: Cpu = False,
    gpu: Gpu = False,
    no_fallback: NoFallback = False,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    gpu_precision: GpuPrecision = "fp16",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for each frame.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Classify what a camera, stream, video or folder shows, frame by frame."""
    if not verbose:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from edge_ran import targets

    spec = targets.resolve(device)
    chosen = given(context, "model", "device", "install", "json", "force")
    own = suited(spec, chosen)
    if "camera" not in chosen:
        own["camera"] = camera = spec.camera
    options = runtime_options(
        own.get("accelerator", accelerator), cpu, gpu, no_fallback, own.get("threads", threads), delegate,
        delegate_option, gpu_precision, verbose,
    )  # fmt: skip
    if spec.target != "local":
        if json:
            chosen["json"] = True
        order = _order(chosen, own, tflite_or_default(model), options, force)
        # Not quiet here: the device is told to be, and a fallback is to be seen all the same.
        with targets.open_target(spec, talk(False), install) as target:
            target.follow(order, _print)
        return
    from edge_ran.camera import Limits, open_source
    from edge_ran.card import Overrides
    from edge_ran.classifier import Classifier, mask_cost, read_labels
    from edge_ran.errors import CameraError
    from edge_ran.files import refuse_existing, write_text
    from edge_ran.stream import Decider, Stream, StreamOptions, run_stream

    limits = Limits(parse_seconds(stall), parse_seconds(frozen), parse_seconds(reconnect))
    decide = Decider(smoothing, threshold)
    wishes = StreamOptions(
        save=save, force=force, show=show, record=record, label=label, keep=keep, on_change=on_change, web=web,
        uncertain_below=threshold or StreamOptions.uncertain_below, mask=attention or StreamOptions.mask,
    )  # fmt: skip
    if summary:
        refuse_existing(summary, force)
    with (
        Classifier(
            tflite_or_default(model),
            options,
            Overrides(
                labels=read_labels(labels) if labels else None,
                mean=parse_triple("--mean", mean),
                std=parse_triple("--std", std),
            ),
            attention=bool(attention),
        ) as classifier,
        _stop_on_signals() as (stop, signals),
    ):
        got = classifier.runtime.accelerator
        announce(got, quiet)
        if attention:
            check_mask(attention, classifier.modules)
        # A little more patience in the driver than in the watchdog, so that a hung read ends by itself as well.
        try:
            stream = Stream(
                classifier,
                lambda: open_source(camera, width, height, fps, timeout_s=limits.stall_s + 1),
                decide=decide,
                top_k=top_k,
                realtime=realtime,
                limits=limits,
                max_frames=max_frames,
                duration_s=parse_seconds(duration),
                notify=lambda notice: say(notice.text),
                stop=stop,
                masks=mask_cost(classifier) if attention else None,
            )
        except CameraError:
            if signals:  # nothing has begun that could be finished
                raise typer.Exit(130) from None
            raise
        column = max(len(text) for text in (*classifier.labels, "unknown"))

        def on_result(result: Any) -> None:
            line = jsonlib.dumps(result.to_dict(got), allow_nan=False) if json else _result_text(result, column, got)
            try:
                print(line, flush=True)
            except BrokenPipeError:  # whoever read our lines has read enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                stop.set()

        try:
            run_stream(stream, got, wishes, stop=stop, on_result=on_result, complain=say)
        finally:
            report = stream.summary()
            if summary:
                write_text(summary, jsonlib.dumps(report.to_dict(), indent=1) + "\n")
            if report.captured and not quiet:
                print(_summary_text(report), file=sys.stderr)
    if signals:
        raise typer.Exit(130)


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # whoever read our lines has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


def _order(chosen: dict[str, Any], own: dict[str, Any], model: Path, options: RuntimeOptions, force: bool) -> Order:
    """What another device is asked to do: files of this machine go along, and what it writes comes back at the end.

    Only what was typed, ``chosen``, names files of this machine. What the device's description says, ``own``, is of the
    device: a description is a file that others write, and must not be able to fetch anything from here.
    """
    from edge_ran.files import refuse_existing
    from edge_ran.stream.web import is_loopback, parse_address
    from edge_ran.targets import Order, Page, Result

    if chosen.get("show"):
        raise UsageError("--show opens its window on this machine alone", "use --web, or --save FILE")
    chosen.pop("show", None)
    for name in ("save", "record", "summary"):
        if name in chosen:
            if name != "record":
                refuse_existing(Path(chosen[name]), force)
            chosen[name] = Result(Path(chosen[name]))
    if "web" in chosen:
        page = Page(*parse_address(chosen["web"]))
        if not is_loopback(page.host) or not page.port:
            raise UsageError(f"--web {chosen['web']}: with --device the page is for this machine alone", "--web 8080")
        chosen["web"] = page
    if "labels" in chosen:
        chosen["labels"] = Path(chosen["labels"])
    if "camera" in chosen and (Path(chosen["camera"]).is_file() or Path(chosen["camera"]).is_dir()):
        chosen["camera"] = Path(chosen["camera"])  # of this machine; any other is the device's
    return Order("run", (model,), {**chosen, **own}, options)


def check_mask(which: str, modules: tuple[str, ...]) -> None:
    """Raise UsageError unless ``which`` is ``mean`` or the number of one of the masks."""
    if which != "mean" and which not in map(str, range(1, len(modules) + 1)):
        named = ", ".join(f"{number} {module}" for number, module in enumerate(modules, 1))
        raise UsageError(f"--attention {which!r} is none of the network's masks", f"--attention mean, or {named}")


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Yield an event that SIGINT and SIGTERM set, and the signals that came; a second one ends the program at once."""
    stop, came = threading.Event(), list[int]()
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    try:
        yield stop, came
    finally:
        restore()


def _result_text(result: Any, column: int, accelerator: Any) -> str:
    others = "  ".join(f"{p.label} {p.score:.0%}" for p in result.predictions if p.label != result.label)
    return (
        f"{result.frame.index:>6}  {result.label:<{column}} {result.score:>4.0%}  "
        f"{result.stages_ms['end_to_end']:7.1f} ms  {accelerator}  {others}"
    ).rstrip()


def _summary_text(report: Any) -> str:
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items())
    lines = [
        f"{report.source}: {report.captured:,} frames captured = {report.classified:,} classified + "
        f"{sum(report.dropped.values()):,} dropped" + (f" ({dropped})" if dropped else ""),
        f"{report.fps:.1f} frames/s over {report.seconds:.1f} s, capture included, on {report.accelerator}",
    ]
    if report.latency:
        times = ", ".join(f"p{p} {getattr(report.latency, f'p{p}_ms'):.1f}" for p in (50, 90, 99))
        stages = ", ".join(f"{k} {v:.2f}" for k, v in report.stages_ms.items() if k != "end_to_end")
        lines.append(f"capture to result {times} ms; medians: {stages} ms")
    if cost := report.masks:
        lines.append(
            f"attention: {cost.masks} masks, inference {cost.with_ms:.3f} ms with and {cost.without_ms:.3f} ms without "
            f"them ({cost.pairs} pairs of runs before the first frame)"
        )
    lines += [f"gap: {gap.kind} for {gap.seconds:.1f} s" for gap in report.gaps]
    return "\n".join(lines)
