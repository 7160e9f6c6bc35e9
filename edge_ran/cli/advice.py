"""What to type where Typer refused the words of a command line: words of other programs, or values of other forms."""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

from edge_ran.cli.command import verb_of

# What other programs call the verbs.
_OTHER_WORDS = {
    "run": (
        "predict",
        "classify",
        "infer",
        "inference",
        "detect",
        "recognize",
        "recognise",
        "camera",
        "stream",
        "label",
    ),
    "evaluate": ("test", "eval", "val", "validate", "accuracy", "score"),
    "benchmark": ("bench", "perf", "time", "speed", "latency"),
    "inspect": ("info", "show", "summary", "describe"),
    "convert": ("tflite", "export-tflite", "compile", "freeze"),
    "train": ("fit", "finetune", "retrain", "learn"),
    "dataset": ("data", "datasets", "check", "split"),
    "doctor": ("env", "checks", "diagnose", "version", "install"),
}
# What other programs call the options.
_OTHER_OPTIONS = {
    "--camera": (
        "-c",
        "-i",
        "-s",
        "--source",
        "--input",
        "--image",
        "--images",
        "--video",
        "--url",
        "--webcam",
        "--cam",
    ),
    "--labels": ("-l", "--label", "--label-file", "--label_file", "--class-names", "--names", "--classes"),
    "--int8": ("--quantize", "--quant", "--optimize", "--dtype"),
    "--top-k": ("-k", "--topk", "--top_k"),
    "--threshold": ("--conf", "--confidence", "--score", "--min-score"),
    "--threads": ("-t", "--num-threads", "--num_threads", "-j"),
    "--num-runs": ("-n", "--runs", "--num_runs", "--iterations", "--repeat"),
    "--input-size": ("--imgsz", "--size", "--img-size", "--image-size", "--shape"),
    "--output": ("--out", "--outfile", "--output-file", "--output-dir", "--save-to", "--output-format"),
    "--epochs": ("-e", "--epoch", "--num-epochs"),
    "--batch-size": ("-b", "--batch", "--bs"),
}
_POSITIONAL = ("-m", "--model", "--weights", "--data", "--dataset", "--data-dir", "--input", "--file", "--path")


def advice(context: Any, words: list[str], message: str) -> str:
    """Return what to type where Typer refused the words of a command line; empty where nothing is known.

    For values of an option with blanks between them, numbers with a decimal comma, what is read without --camera, and
    verbs as other programs call them.
    """
    if context is None or not hasattr(context.command, "params"):
        return ""
    known = {name: one for one in context.command.params for name in one.opts}
    for place, word in enumerate(words):
        values = list(itertools.takewhile(lambda value: not value.startswith("--"), words[place + 1 :]))
        if word in known and "," in (getattr(known[word], "metavar", "") or "") and len(values) > 1:
            return f"{word} {shlex.quote(','.join(value.strip(',') for value in values))}"
        name, _, value = word.partition("=") if "=" in word else (word, "", "".join(values[:1]))
        if message.startswith(f"Invalid value for '{name}'") and re.fullmatch(r"\d*,\d+", value):
            return f"with a point: {name} {value.replace(',', '.')}"
        percent = re.fullmatch(r"(\d+(?:\.\d+)?)( ?%)?", value)
        refused = re.search(r"less than( or equal to)? (0?\.\d+|1(\.0)?)$", message) or value.endswith("%")
        if percent and refused and message.startswith(f"Invalid value for '{name}'"):
            if getattr(known.get(name), "metavar", "") in ("%", "POINTS"):
                return f"without the sign: {name} {percent[1]}"
            if 1 < float(percent[1]) <= 100:
                return f"as a part of 1: {name} {float(percent[1]) / 100:g}"
        size = re.fullmatch(r"(\d+)[xX](\d+)", value)
        if size and name == "--width" and message.startswith("Invalid value for '--width'"):
            return f"--width {size[1]} --height {size[2]}"
    if unknown := re.match(r"No such option: (-[\w-]+)", message):
        ours = next((our for our, others in _OTHER_OPTIONS.items() if unknown[1] in others and our in known), "")
        arguments = [one.name.upper() for one in context.command.params if one.param_type_name == "argument"]
        if not ours and unknown[1] in _POSITIONAL and arguments:
            return f"edge-ran {verb_of(context)} {' '.join(arguments)}"
        return ours
    extra = re.fullmatch(r"Got unexpected extra argument\(?s?\)? \((.+)\)\.?", message)
    if extra and context.info_name == "run" and "--camera" not in words and extra[1] in words:
        return f"if that is what to look at: --camera {shlex.quote(extra[1])}"
    meant = next((ours for word in words[1:2] for ours, others in _OTHER_WORDS.items() if word in others), "")
    return f"edge-ran {meant} --help" if meant else ""
