"""edge-ran: a residual attention network from a folder of photos to a camera classifier on any small device.

The names in ``__all__`` are the public Python API; docs/api.md describes them. Each is imported at its first use, so
that ``import edge_ran`` loads no NumPy, no runtime and no TensorFlow.
"""

import importlib

__version__ = "0.1.0"

# A public name: the module that has it. __init__.pyi tells type checkers the same.
_PUBLIC = {
    "Classifier": "edge_ran.classifier",
    "Prediction": "edge_ran.classifier",
    "Overrides": "edge_ran.card",
    "RuntimeOptions": "edge_ran.runtime",
    "read_picture": "edge_ran.picture",
    "classify_folder": "edge_ran.api",
    "Stream": "edge_ran.stream",
    "Result": "edge_ran.stream",
    "Summary": "edge_ran.stream",
    "measure_accuracy": "edge_ran.api",
    "EvalReport": "edge_ran.evaluate",
    "convert": "edge_ran.api",
    "benchmark": "edge_ran.api",
    "Bench": "edge_ran.bench",
    "Plan": "edge_ran.bench",
    "write_record": "edge_ran.api",
    "read_record": "edge_ran.api",
    "EdgeRanError": "edge_ran.errors",
    "GateError": "edge_ran.errors",
    "UsageError": "edge_ran.errors",
    "InputError": "edge_ran.errors",
    "OutputExists": "edge_ran.errors",
    "EnvironmentMissing": "edge_ran.errors",
    "CameraError": "edge_ran.errors",
    "AcceleratorError": "edge_ran.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edge_ran' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
