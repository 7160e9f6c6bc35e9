"""A release: a network, how to run it, and the answers that it must give; named by the hash of all that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edge_ran import __version__, records
from edge_ran.camera.address import without_password
from edge_ran.card import Overrides
from edge_ran.catalogue import DeviceSpec
from edge_ran.classifier import real_inputs
from edge_ran.deploy.layout import AT_RELEASE, AT_STORE
from edge_ran.errors import InputError, UsageError
from edge_ran.files import sha256
from edge_ran.model_interface import read_interface
from edge_ran.preprocess import Preprocessor
from edge_ran.runtime import RuntimeOptions, open_runtime
from edge_ran.targets.defaults import suited
from edge_ran.targets.ssh.packages import own_code
from edge_ran.targets.ssh.payload import Payload

PICTURES = 16  # that the board's answers are compared on
WHICH = ("", "all", "changes", "uncertain")
HERE_ONLY = ("show", "save", "summary", "max_frames", "duration", "record")


@dataclass(frozen=True)
class Plan:
    """What is to run on boards.

    Attributes:
        model: a ``.tflite`` image classifier.
        options: options of ``run`` that were given, by the name of their parameter. A Path is a file of this machine
            and goes along; a str is as typed, and may name something of the board.
        runtime: the accelerator; what ``options`` leave open is as the device's description says.
        overrides: what the model's metadata does not say.
        record: which frames are recorded there: ``all``, ``changes``, ``uncertain``; empty = none.
        record_limit_bytes: the oldest pictures go when there is more.
        install: whether pip may install there what is missing.
        min_agreement: share of pictures, 0..1, on which the board's top-1 must be this machine's.
        max_latency_ms: of the median inference there; None takes the device's ``latency_budget_ms``.
        wait_s: how long the new release may take until it classifies frames.
    """

    model: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    overrides: Overrides = field(default_factory=Overrides)
    record: str = ""
    record_limit_bytes: int = 500_000_000
    install: bool = False
    min_agreement: float = 0.98
    max_latency_ms: float | None = None
    wait_s: float = 60.0

    def __post_init__(self) -> None:
        for name in HERE_ONLY:
            if name in self.options:
                raise UsageError(f"--{name.replace('_', '-')} is not for a service", "edge-ran run --device NAME")
        if self.record not in WHICH:
            raise UsageError(f"--record {self.record} is unknown", f"choose one of: {', '.join(WHICH[1:])}")
        if not 0 <= self.min_agreement <= 1:
            raise UsageError(f"--min-agreement {self.min_agreement:g} is not a share", "write 0 to 1, or 0% to 100%")

    def budget_ms(self, spec: DeviceSpec) -> float:
        """The longest median inference on a board; 0 = any."""
        return spec.latency_budget_ms if self.max_latency_ms is None else self.max_latency_ms


@dataclass(frozen=True)
class Release:
    """What lies on a board as ``release.json``; paths begin with ``layout.AT_RELEASE`` or ``AT_STORE``.

    ``words`` are options of ``run``; ``contents`` names what it needs of the store, ``python`` is the
    interpreter that runs it, ``environment`` the folder of its packages; empty where ``python`` has them.
    """

    model_name: str
    model_sha256: str
    model: str
    answers: str
    code: str
    words: tuple[str, ...]
    contents: tuple[str, ...]
    runtime: RuntimeOptions
    record: str
    record_limit_bytes: int
    python: str
    environment: str
    edge_ran: str

    @property
    def identity(self) -> str:
        """12 hexadecimal digits of the hash of everything that makes up the release."""
        text = json.dumps(records.to_dict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def shown_words(self) -> tuple[str, ...]:
        """The options as they may be printed: without passwords."""
        pairs = (word.partition("=") for word in self.words)
        return tuple(f"{name}{equals}{without_password(value)}" for name, equals, value in pairs)


def record_answers(plan: Plan, target: Path) -> None:
    """Write inputs and this machine's answers of the CPU, for ``acceptance`` on a board.

    Raises:
        InputError: the file is no image classifier.
    """
    interface = read_interface(plan.model, plan.overrides)
    if interface.spec.is_open:
        raise InputError(f"{plan.model} takes pictures of any size", "choose one: --input-size HEIGHTxWIDTH")
    inputs = real_inputs(Preprocessor(interface.spec, interface.tensor), None, PICTURES)
    shape = interface.tensor.shape if interface.tensor.open_axes else ()
    with open_runtime(plan.model, RuntimeOptions(), input_shape=shape) as runtime:
        answers = [runtime.run(x) for x in inputs]
    outputs = {f"output{i}": np.stack([one[i] for one in answers]) for i in range(len(interface.graph.outputs))}
    outputs |= {"inputs": np.stack(inputs), "scores": np.array(interface.place)}
    with open(target, "wb") as file:
        np.savez_compressed(file, **outputs)  # type: ignore[arg-type]


def pack(plan: Plan, spec: DeviceSpec, answers: Path, payload: Payload, python: str, environment: str = "") -> Release:
    """Make the release of a board; its files are added to ``payload``.

    Args:
        plan: what is to run.
        spec: the board.
        answers: what ``record_answers`` wrote.
        payload: made with ``new_payload``.
        python: the interpreter there that is to run it.
        environment: the folder of packages there, by name; empty where ``python`` has them.
    """
    own = suited(spec, plan.options)
    options = {"reconnect": "forever", "camera": spec.camera, **own.options(), **plan.options}
    model = payload.file(plan.model, "0")
    golden = payload.file(answers, "answers")
    code = payload.folder(own_code())
    words = payload.words(options)
    return Release(
        model_name=plan.model.name,
        model_sha256=sha256(plan.model),
        model=str(model),
        answers=str(golden),
        code=str(code),
        words=tuple(words),
        contents=tuple(sorted(payload.contents)),
        runtime=own.runtime(plan.runtime),
        record=plan.record,
        record_limit_bytes=plan.record_limit_bytes,
        python=python,
        environment=environment,
        edge_ran=__version__,
    )


def new_payload() -> Payload:
    """A payload whose paths are those of a release, wherever that lies on a board."""
    return Payload(PurePosixPath(AT_RELEASE), PurePosixPath(AT_STORE))


def local_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of ``run`` as typed, with those that name files of this machine as paths."""
    found = dict(options)
    for name in ("labels", "camera"):
        if name in found:
            path = Path(str(found[name]))
            if name == "labels" and not path.is_file():
                raise InputError(f"cannot read {path}", "check the path")
            if path.is_file() or path.is_dir():
                found[name] = path
    if "delegate" in found:
        found["delegate"] = str(found["delegate"])  # a library of the board
    return found
