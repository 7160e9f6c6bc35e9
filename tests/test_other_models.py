"""Networks of other programs are told by name or content, with what makes a file of them that is taken here."""

import subprocess

import numpy as np
import pytest

from edge_ran import other_models
from edge_ran.errors import InputError
from edge_ran.labels import decode_labels

TFJS = b'{"format": "layers-model", "modelTopology": {}, "weightsManifest": []}'


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("model.json", TFJS, "tensorflowjs_converter"),
        ("model.json", TFJS.replace(b"layers", b"graph"), "TensorFlow Lite"),
        ("m.mlmodel", b"\x08\x01", "Core ML"),
        ("m.rknn", b"RKNN", "compiled for one kind of device"),
        ("cp.ckpt.index", b"\0", "load_weights('cp.ckpt')"),
        ("cp.ckpt.data-00000-of-00002", b"\0", "load_weights('cp.ckpt')"),
        ("best.safetensors", b"\0", "PyTorch"),
        ("m.bin", b"\x08\x08onnx", "ONNX"),
        ("yolo.weights", b"\0", "another framework"),
    ],
)
def test_networks_of_other_programs_are_told(name, head, words):
    assert words in " ".join(other_models.refusal(name, head) or ())


@pytest.mark.parametrize("name", ["m.tflite", "card.json", "m.h5", "notes.txt"])
def test_other_files_are_not(name):
    assert other_models.refusal(name, b"{}") is None


def test_a_folder_is_told_by_what_lies_in_it(tmp_path):
    assert other_models.in_folder(tmp_path) is None
    (tmp_path / "model.json").write_bytes(TFJS)
    assert "TensorFlow.js" in (other_models.in_folder(tmp_path) or ("",))[0]
    (tmp_path / "keras_model.h5").write_bytes(b"")
    assert (other_models.in_folder(tmp_path) or ("", ""))[1] == f"give {tmp_path}/keras_model.h5"


def test_labels_that_are_no_text_are_told_and_the_command_for_numpy_s_works(tmp_path):
    np.save(tmp_path / "labels.npy", np.array(["red", "green"]))
    with pytest.raises(InputError, match="is an array of NumPy, not text") as caught:
        decode_labels((tmp_path / "labels.npy").read_bytes(), "it", str(tmp_path / "labels.npy"))
    command, _, new = caught.value.remedy.partition("; then give ")
    subprocess.run(["sh", "-c", command], check=True)
    with open(new, "rb") as file:
        assert decode_labels(file.read(), "it") == ("red", "green")
    for data, words in ((b"\x80\x04\x95", "pickle"), (b"\x89PNG\r\n", "picture"), (b"a\0\xff\0", "binary")):
        with pytest.raises(InputError, match=words) as caught:
            decode_labels(data, "it", "labels.bin")
        assert "iconv" not in caught.value.remedy
    with pytest.raises(InputError) as caught:  # the new file lies beside: the paths in a manifest count from there
        decode_labels("Käse".encode("cp1252"), "it", "data/list.csv")
    assert "data/utf8.csv" in caught.value.remedy
