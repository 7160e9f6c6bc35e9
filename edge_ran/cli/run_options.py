"""The options of `edge-ran run`: the camera, the answers, and where results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from edge_ran.cli.app import parse_seconds
from edge_ran.cli.options import OutputOptions
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.camera import Limits
    from edge_ran.stream import Decider, StreamOptions


@dataclass(frozen=True)
class CameraOptions:
    """Where frames come from."""

    PANEL: ClassVar[str] = "Camera"

    camera: Annotated[
        str,
        typer.Option(
            "--camera",
            metavar="SOURCE",
            help="0, /dev/video0, csi://0, rtsp://…, http://…, FILE, DIR; of a phone: back, front",
        ),
    ] = "0"
    width: Annotated[int, typer.Option("--width", min=0, help="Frame width in pixels; 0 = the camera's own.")] = 0
    height: Annotated[int, typer.Option("--height", min=0, help="Frame height in pixels; 0 = the camera's own.")] = 0
    fps: Annotated[float, typer.Option("--fps", min=0, help="Frame rate of a camera or file; 0 = its own.")] = 0.0
    realtime: Annotated[bool, typer.Option(help="Play files at their own rate.")] = True
    parallel: Annotated[
        int,
        typer.Option("--parallel", metavar="COUNT", help="Frames classified at once; 0 = what is fastest."),
    ] = 0
    reconnect: Annotated[
        str, typer.Option("--reconnect", metavar="TIME", help="How long to try to reach a lost camera again.")
    ] = "30s"
    stall: Annotated[
        str, typer.Option("--stall", metavar="TIME", help="Time without frames that counts as a stall.")
    ] = "5s"
    frozen: Annotated[
        str,
        typer.Option("--frozen", metavar="TIME", help="Time of equal frames that is frozen; 0 = never."),
    ] = "10s"

    def limits(self) -> Limits:
        """Return when a live source counts as faulty. Raises UsageError."""
        from edge_ran.camera import Limits

        limits = Limits(parse_seconds(self.stall), parse_seconds(self.frozen), parse_seconds(self.reconnect))
        if limits.stall_s <= 0:
            raise UsageError("--stall must be above 0", "give a time, such as --stall 5s; --stall forever waits")
        return limits

    def mode(self) -> dict[str, Any]:
        """Return what is asked of a camera or file, as ``stream.Stream`` takes it."""
        size = {"width": self.width, "height": self.height}
        return {**size, "fps": self.fps, "realtime": self.realtime, "parallel": self.parallel}


@dataclass(frozen=True)
class AnswerOptions:
    """How scores become answers, and when to stop."""

    PANEL: ClassVar[str] = "Answers"

    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Number of predictions for a frame.")] = 3
    threshold: Annotated[
        float, typer.Option("--threshold", help='Below this score, 0 to 1, the answer is "unknown".')
    ] = 0.0
    smoothing: Annotated[float, typer.Option("--smoothing", help="Weight of earlier frames, from 0 to below 1.")] = 0.0
    max_frames: Annotated[
        int, typer.Option("--max-frames", min=0, help="Stop after this many results; 0 = no limit.")
    ] = 0
    duration: Annotated[str, typer.Option("--duration", metavar="TIME", help="Stop after this time: 30s, 5m, 2h.")] = (
        "forever"
    )

    def decider(self) -> Decider:
        """Return what makes an answer of scores. Raises UsageError."""
        from edge_ran.stream import Decider

        return Decider(self.smoothing, self.threshold)


@dataclass(frozen=True)
class ResultOptions:
    """Where results go besides the terminal."""

    PANEL: ClassVar[str] = "Results"

    show: Annotated[bool, typer.Option("--show/--headless", help="Open a window; q or Esc ends.")] = False
    web: Annotated[
        str,
        typer.Option(
            "--web",
            metavar="[HOST:PORT]",
            help="Serve a live page; beyond this machine with the token in EDGE_RAN_WEB_TOKEN, else a fresh one.",
            show_default="off; without a value: 127.0.0.1:8080",
        ),
    ] = ""
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Record the annotated video (.mp4, .avi, .mkv)."),
    ] = None
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FOLDER", help="Save frames as pictures that train reads.")
    ] = None
    label: Annotated[
        str, typer.Option("--label", help="Class of the recorded pictures.", show_default="the answer")
    ] = ""
    keep: Annotated[str, typer.Option("--keep", metavar="all|changes|uncertain", help="Which frames to record.")] = (
        "all"
    )
    on_change: Annotated[
        str,
        typer.Option("--on-change", metavar="COMMAND", help="Run when the answer changes, with {label} and {score}."),
    ] = ""
    attention: Annotated[
        str,
        typer.Option(
            "--attention",
            metavar="[mean|1|2|…]",
            help="Draw the soft masks.",
            show_default="off; without a value: mean",
        ),
    ] = ""
    summary: Annotated[Path | None, typer.Option("--summary", metavar="FILE", help="Write the summary as JSON.")] = None

    def stream_options(self, threshold: float, force: bool) -> StreamOptions:
        """Return them as the stream takes them; ``threshold`` is the score of an uncertain example, 0 = its own."""
        from edge_ran.stream import StreamOptions

        return StreamOptions(
            save=self.save,
            force=force,
            show=self.show,
            record=self.record,
            label=self.label,
            keep=self.keep,
            uncertain_below=threshold or StreamOptions.uncertain_below,
            on_change=self.on_change,
            web=self.web,
            mask=self.attention or StreamOptions.mask,
        )


@dataclass(frozen=True)
class LineOutputOptions(OutputOptions):
    """How `run` shows what it found."""

    json: Annotated[bool, typer.Option("--json", help="Print a line with one JSON object for each frame.")] = False
