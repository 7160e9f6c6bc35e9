"""The run loop: a source's frames classified as they come, decided on, drawn, kept and shown."""

from edge_ran.stream.decide import Decider
from edge_ran.stream.pipeline import Result, Stream, Summary
from edge_ran.stream.runner import StreamOptions, run_stream

__all__ = ["Decider", "Result", "Stream", "StreamOptions", "Summary", "run_stream"]
