"""The run loop: a source's frames classified as they come, decided on, drawn, kept and shown."""

from edge_ran.stream.decide import Decider
from edge_ran.stream.pipeline import Result, Stream, Summary
from edge_ran.stream.watch import Wishes, watch

__all__ = ["Decider", "Result", "Stream", "Summary", "Wishes", "watch"]
