"""Frames from anywhere: one string names a camera, stream, clip or folder; ``Capture`` keeps it alive and fresh."""

from edge_ran.camera.capture import Capture, Gap, Limits, Notice
from edge_ran.camera.frame import Frame, FrameSource
from edge_ran.camera.source import open_source

__all__ = ["Capture", "Frame", "FrameSource", "Gap", "Limits", "Notice", "open_source"]
