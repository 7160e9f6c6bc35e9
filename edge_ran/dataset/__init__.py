"""Labelled images: a folder of class folders, a CSV manifest or an ``.npz`` -> samples -> pixels.

``load`` lists them (``folders``, ``manifest``, ``arrays``; frames of ``clips``), ``split`` holds a part out
(``splitting``), ``pixels`` and ``frames`` decode (``decoding``), ``summarise`` looks for trouble (``checks``).

A *group* is what must not be torn apart when a part is held out: the frames of one clip, the pictures of one place.
Neighbouring frames of a clip are almost the same picture, so a split by frame measures memory, not skill.
"""

from edge_ran.dataset.checks import DatasetSummary, alike_notes, copy_notes, frame_leak, ignored_notes, summarise
from edge_ran.dataset.clips import CLIP_SUFFIXES, live_clip, timed_frames
from edge_ran.dataset.decoding import CACHE_ABOVE_BYTES, frames, pixels, readable
from edge_ran.dataset.loading import Reading, load, unlabelled
from edge_ran.dataset.samples import SPLIT_NAMES, Dataset, Progress, Sample, renamed, targets
from edge_ran.dataset.splitting import not_covered, split

__all__ = [
    "CACHE_ABOVE_BYTES",
    "CLIP_SUFFIXES",
    "SPLIT_NAMES",
    "Dataset",
    "DatasetSummary",
    "Progress",
    "Reading",
    "Sample",
    "alike_notes",
    "copy_notes",
    "frame_leak",
    "frames",
    "ignored_notes",
    "live_clip",
    "load",
    "not_covered",
    "pixels",
    "readable",
    "renamed",
    "split",
    "summarise",
    "targets",
    "timed_frames",
    "unlabelled",
]
