"""What a ``.tflite`` is made of and what it says of itself, without TensorFlow or any runtime.

``read_graph`` gives tensors and operators (``structure``), after ``flatbuffer`` has checked every offset in the file;
``gpu_warnings`` and ``xnnpack_unsupported`` tell what an accelerator leaves out or gets wrong (``accelerators``);
``attach_card`` and ``read_card`` put a ``ModelCard`` into the file and get it out again (``metadata``); ``describe``
says it all in one record; ``add_masks`` makes the soft masks outputs (``masks``); ``relus_as_quantize`` keeps XNNPACK's
int8 graph whole (``relus``); ``check_runnable`` refuses what would crash a runtime (``soundness``).

Model files are untrusted: whatever the bytes, reading ends with a graph or one ``InputError``, in time that grows no
faster than the file.
"""

from edge_ran.graph.accelerators import Finding, gpu_warnings, xnnpack_unsupported
from edge_ran.graph.describe import describe
from edge_ran.graph.masks import add_masks, drop_masks, find_masks
from edge_ran.graph.metadata import attach_card, read_card
from edge_ran.graph.relus import relus_as_quantize
from edge_ran.graph.soundness import check_runnable
from edge_ran.graph.structure import Graph, Operator, TensorSpec, forget_graphs, parse_graph, plain_pixels, read_graph

__all__ = [
    "Finding",
    "Graph",
    "Operator",
    "TensorSpec",
    "add_masks",
    "attach_card",
    "check_runnable",
    "describe",
    "drop_masks",
    "find_masks",
    "forget_graphs",
    "gpu_warnings",
    "parse_graph",
    "plain_pixels",
    "read_card",
    "read_graph",
    "relus_as_quantize",
    "xnnpack_unsupported",
]
