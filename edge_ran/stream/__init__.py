"""The run loop: a source's frames classified as they come, decided on, drawn, kept and shown."""

from edge_ran.stream.decide import Decider
from edge_ran.stream.pipeline import FrameRecord, Result, Stream, Summary
from edge_ran.stream.runner import StreamOptions, run_stream

__all__ = ["Decider", "FrameRecord", "Result", "Stream", "StreamOptions", "Summary", "run_stream"]
