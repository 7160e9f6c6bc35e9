"""Networks in the forms of other programs: what a file or folder is, and how a ``.tflite`` or ``.keras`` is made."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_AGAIN = "save the network as .tflite or .keras where it was trained"
_ORIGINAL = "give the .tflite or .keras that it was made from"
PYTORCH = (
    "is of PyTorch: it holds Python objects, not the Keras layers that are rewritten and trained here",
    "litert-torch makes a .tflite of the model, which edge-ran run, verify and benchmark take",
)
# By the ending of a file's name, in lower case.
_BY_ENDING: dict[tuple[str, ...], tuple[str, str]] = {
    (".onnx",): (
        "is an ONNX graph: it holds operators, not the Keras layers that are rewritten and trained here",
        "onnx2tf makes a .tflite of it, which edge-ran run, verify and benchmark take",
    ),
    (".pt", ".pth", ".pkl", ".ckpt", ".safetensors", ".torchscript"): PYTORCH,
    (".pb", ".pbtxt", ".meta"): (
        "is a TensorFlow graph, not a Keras network",
        "model.save('model.keras') where it was trained",
    ),
    (".index", ".data-00000-of-00001"): (
        "holds weights of a TensorFlow checkpoint alone",
        "in the script that made the network: model.load_weights({stem}); model.save('model.keras')",
    ),
    (".mlmodel", ".mlpackage", ".mlmodelc"): ("is a network of Apple's Core ML", _AGAIN),
    (".caffemodel", ".prototxt", ".weights", ".cfg", ".params", ".pdmodel", ".pdiparams", ".param", ".mnn", ".gguf"): (
        "is a network of another framework",
        _AGAIN,
    ),
    (".xml", ".blob"): ("is a network of OpenVINO", _ORIGINAL),
    (".engine", ".plan", ".trt", ".rknn", ".hef", ".kmodel", ".dlc", ".cvimodel", ".om", ".nb", ".axmodel", ".ncb"): (
        "was compiled for one kind of device",
        _ORIGINAL,
    ),
    (".joblib", ".sav"): ("is a model that Python pickled, as scikit-learn does", _AGAIN),
}
_SEVERAL = (".tflite", ".keras", ".h5", ".hdf5")  # what a folder may hold that a verb takes


def refusal(path: Path | str, head: bytes) -> tuple[str, str] | None:
    """Return what a file is (the words after its name) and what to do; None where it is of no such program.

    Args:
        path: its path.
        head: its first bytes, 1000 or more where it has so many.
    """
    name, quoted = str(path).lower(), shlex.quote(str(path))
    if head.lstrip().startswith(b"{") and re.search(rb'"(weightsManifest|modelTopology)"', head):
        if b"graph-model" in head:
            return "is a graph of TensorFlow.js", "export it as TensorFlow Lite where it was trained"
        made = shlex.quote(str(Path(path).with_name("from_tfjs.h5")))
        return (
            "is a network of TensorFlow.js",
            f"tensorflowjs_converter --input_format tfjs_layers_model --output_format keras {quoted} {made}; "
            f"then edge-ran import {made}",
        )
    if re.search(r"\.data-\d+-of-\d+$", name):
        name = ".index"
    elif b"onnx" in head[:200].lower():
        name = ".onnx"
    elif head[:2] in (b"\x80\x02", b"\x80\x04") and not name.endswith((".joblib", ".sav")):
        name = ".pkl"
    for endings, (what, remedy) in _BY_ENDING.items():
        if name.endswith(endings):
            stem = re.sub(r"\.(index|data-\d+-of-\d+)$", "", str(path))
            return what, remedy.format(stem=repr(stem))
    return None


def in_folder(folder: Path) -> tuple[str, str] | None:
    """Return what a folder holds (the words after its name) and what to do; None where no file of it is a network.

    A file that a verb takes counts before those of other programs; of several, the first by name.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    for path in (path for path in paths if path.suffix.lower() in _SEVERAL):
        return f"is a folder; {path.name} lies in it", f"give {shlex.quote(str(path))}"
    for path in paths:
        with open(path, "rb") as file:
            found = refusal(path, file.read(1000))
        if found:
            return f"is a folder; {path.name} in it {found[0]}", found[1]
    return None
