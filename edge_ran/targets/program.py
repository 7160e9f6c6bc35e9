"""The user's ``benchmark_model`` on a phone: found, checked, sent, run; and as a runtime that answers inputs."""

from __future__ import annotations

import os
import re
import shlex
import statistics
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import vulkan
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import AcceleratorError, EnvironmentMissing
from edge_ran.files import TemporaryFolder
from edge_ran.graph import Graph, TensorSpec
from edge_ran.runtime import Accelerator, Delegation, RuntimeOptions
from edge_ran.runtime.agreement import Outputs
from edge_ran.targets import benchmark_model
from edge_ran.targets.adb import Done
from edge_ran.targets.adb_phone import Facts, Phone, TookTooLong
from edge_ran.targets.benchmark_model import Output, Request

BINARY_VARIABLE = "EDGE_RAN_BENCHMARK_MODEL"
LOADING_S = 180.0  # a GPU may compile its kernels for a minute and more
ANSWER, ANSWER_RUNS = "answer", 3  # the file of the outputs, and how often one input is run
MACHINES = {40: "armeabi-v7a", 183: "arm64-v8a", 62: "x86_64", 3: "x86", 243: "riscv64"}  # of ELF, as Android says it
SIGNALS = {4: "needs instructions that this processor lacks", 6: "aborted", 9: "was killed", 11: "crashed"}
INPUT_FLAGS = ("--input_layer_value_files", "--output_filepath")
SOURCE = "https://ai.google.dev/edge/litert/models/measurement"

Note = Callable[[str], None]


class CannotSee(EnvironmentMissing):
    """This benchmark_model neither takes inputs from files nor writes what it answers."""


def find_binary(spec: DeviceSpec) -> Path:
    """Return the ``benchmark_model`` that the user provides: of the device's TOML, else of the environment.

    Raises:
        EnvironmentMissing: none is named, there is no such file, or it is no program. It is sent to the phone, and a
            device's TOML is a file that others write: it must not be able to send a key or a picture from here.
    """
    named = spec.benchmark_binary or os.environ.get(BINARY_VARIABLE, "")
    if not named:
        raise EnvironmentMissing(
            "a phone needs the official benchmark_model, and none is named",
            f"get it from {SOURCE}; benchmark_binary in a device's TOML or {BINARY_VARIABLE} names its file",
        )
    path = Path(os.path.expanduser(named))  # Path's own raises where there is no such user
    if not path.is_file():
        raise EnvironmentMissing(f"there is no benchmark_model at {path}", f"get it from {SOURCE}, or correct the path")
    with open(path, "rb") as file:
        if not file.read(4).startswith((b"\x7fELF", b"#!")):
            raise EnvironmentMissing(f"{path} is not a program", f"get benchmark_model from {SOURCE}")
    return path


def check_binary(path: Path, facts: Facts) -> None:
    """Raise EnvironmentMissing for a program of another processor, or of a Linux that is not Android."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return  # a script may wrap it; what cannot be started says so there
    made_for = MACHINES.get(struct.unpack_from("<H", head, 18)[0], "another processor")
    remedy = f"get the one for {facts.abis[0] if facts.abis else 'this phone'} from {SOURCE}"
    if facts.abis and made_for not in facts.abis:
        raise EnvironmentMissing(f"{path.name} is for {made_for}, this phone runs {', '.join(facts.abis)}", remedy)
    if b"/lib/ld-" in head or b"/lib64/ld-" in head:
        raise EnvironmentMissing(f"{path.name} is for Linux, not for Android", remedy)


class BrokenGpu(AcceleratorError):
    """The phone's GPU is there, but crashed, hung or failed."""


class Program:
    """The user's ``benchmark_model`` on a phone."""

    def __init__(self, phone: Phone, facts: Facts, binary: Path, say: Note) -> None:
        self.phone, self.facts, self.binary = phone, facts, binary
        self.name = ""  # which of the two it is; known after its first run
        self.say = say
        self._there = phone.put(binary, executable=True, note=say)
        # LiteRT's loads its GPU from a library that comes beside it.
        self._libraries = {
            library.name: phone.put(library, note=say)
            for library in sorted(binary.resolve().parent.glob("libLiteRt*.so"))
            if re.fullmatch(r"[\w.+-]+", library.name)
        }
        self._lay_out()

    def _lay_out(self) -> None:
        """Make the run folder as the program needs it."""
        run = self.phone.run_folder()
        for name, there in self._libraries.items():
            self.phone.must(f"ln -sf {there} {run}/{name}", f"keep {name}")

    def send(self, model: Path) -> str:
        """Bring a model there, unless it is there; return its path there."""
        return self.phone.put(model, note=self.say)

    def run(self, request: Request, model: str, extra: Sequence[str] = ()) -> tuple[Done, Output]:
        """Run it once; what it answered before is removed, so that nobody takes it for what it answers now.

        Raises:
            AcceleratorError: the GPU was asked for and not got; BrokenGpu where it crashed, hung or failed.
            EnvironmentMissing: the phone went away, or it took too long; it was ended.
        """
        run = self.phone.run_folder()
        command = shlex.join([self._there, *request.flags(model), *extra])
        # Where the connection breaks, the phone's adb hangs up on this shell, which then leaves nothing behind.
        script = (
            f"cd {run} && rm -f {ANSWER} && trap 'kill -9 $p 2>/dev/null; rm -rf {run}' HUP TERM\n"
            f"LD_LIBRARY_PATH={run} {command} 2>&1 &\np=$!\nwait $p"
        )
        try:
            done = self.phone.shell(script, LOADING_S + 2 * request.max_secs)
        except TookTooLong as error:
            if not request.gpu:
                raise
            self.phone.close()  # the script removes the folder when it is hung up on, whenever that is
            self._lay_out()
            raise BrokenGpu(f"{self.binary.name} hangs on its GPU: {error}", "--cpu") from error
        output = benchmark_model.read(done.lines)
        self.name = output.program if output.times else self.name
        if request.gpu and (done.status or output.times is None or output.gpu is None):
            is_there = done.status > 128 or output.gpu is not None
            raise (BrokenGpu if is_there else AcceleratorError)(self._why_no_gpu(done, output), "--cpu")
        return done, output

    def _why_no_gpu(self, done: Done, output: Output) -> str:
        if done.status > 128:
            return str(self.failure(done, output))
        return output.reason or output.left_reason or f"{self.binary.name} names no GPU among what ran"

    def failure(self, done: Done, output: Output) -> EnvironmentMissing:
        """Say in one line why it came to no end."""
        status, name = done.status, self.binary.name
        if status > 128:
            signal = status - 128
            why = SIGNALS.get(signal, f"was ended by signal {signal}")
            remedy = "try --cpu, or another version of it" if signal != 9 else "is the phone out of memory?"
            return EnvironmentMissing(f"{name} {why} on the phone (status {status})", remedy)
        if not any("STARTING!" in line for line in done.lines):  # with that both begin
            return EnvironmentMissing(
                f"{name} cannot be started on the phone: {output.reason or _last(done.lines)}",
                f"get the one for Android, {self.facts.abis[0] if self.facts.abis else 'its processor'}, from {SOURCE}",
            )
        if output.is_too_old:
            return EnvironmentMissing(f"{name} is too old: it tells no median", f"get a newer one from {SOURCE}")
        return EnvironmentMissing(
            f"{name} failed on the phone: {output.reason or _last(done.lines)}", "try --cpu, or another version of it"
        )


class PhoneRuntime:
    """A ``Runtime`` that feeds TensorFlow Lite's ``benchmark_model`` from files and reads what it writes."""

    def __init__(
        self, program: Program, graph: Graph, options: RuntimeOptions, min_secs: float = 0, is_slice: bool = False
    ) -> None:
        """Bring a model there.

        Args:
            program: what runs it.
            graph: the model.
            options: accelerator, its precision and threads count.
            min_secs: how long each input is run, at least, for times that mean something.
            is_slice: whether the model is a part that nobody will ask for again.
        """
        self._program, self._options = program, options
        self._request = Request(
            num_runs=ANSWER_RUNS,
            warmup_runs=1,
            min_secs=min_secs,
            warmup_secs=min_secs,
            max_secs=60,
            threads=threads(options, program.facts),
            gpu=options.accelerator == "gpu",
            gpu_precision=options.gpu_precision,
        )
        self._folder = TemporaryFolder()
        folder = Path(self._folder.name)
        if is_slice:
            self._model = program.phone.put_temporary(graph.path.read_bytes(), "slice.tflite", folder)
        else:
            self._model = program.send(graph.path)
        self.name, self.version = "benchmark_model", ""
        self.input: TensorSpec = graph.inputs[0]
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self.accelerator = Accelerator(options.accelerator, "cpu")
        self.delegation = Delegation("", len(graph.operators), 0, 0)
        self.threads, self.chatter = self._request.threads, ""
        self.times_ms: list[float] = []

    def __enter__(self) -> PhoneRuntime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary folder here."""
        self._folder.cleanup()

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run once and read every output.

        Raises:
            AcceleratorError: as ``Program.run``.
            EnvironmentMissing: the program cannot read inputs from files, or failed.
        """
        phone, folder = self._program.phone, Path(self._folder.name)
        names, shapes, files = [], [], []
        for place, x in enumerate(inputs):
            names.append(f"input{place}")
            shapes.append(",".join(map(str, x.shape)))
            files.append(f"input{place}:{phone.put_temporary(np.ascontiguousarray(x).tobytes(), f'in{place}', folder)}")
        answer = f"{phone.run_folder()}/{ANSWER}"
        extra = [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(files)}",
            f"--output_filepath={answer}",
        ]
        done, output = self._program.run(self._request, self._model, extra)
        if lacking := [flag for flag in INPUT_FLAGS if any(said.startswith(flag) for said in output.unknown_flags)]:
            raise CannotSee(
                f"{self._program.binary.name} does not know {' and '.join(lacking)}: what it answers cannot be seen",
                f"use TensorFlow Lite's own, of 2.14 or later: {SOURCE}",
            )
        if done.status or output.times is None:
            raise self._program.failure(done, output)
        self.times_ms.append(output.times.median_ms)
        self.accelerator = accelerator(self._options, output, self._program.facts)
        sizes = [int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in self.outputs]
        data = phone.get(answer, sum(sizes), folder)
        if len(data) != sum(sizes):
            raise EnvironmentMissing(
                f"{self._program.binary.name} wrote {len(data)} bytes of outputs instead of {sum(sizes)}",
                "is the phone's storage full? else use another version of it",
            )
        answers, start = [], 0
        for tensor, size in zip(self.outputs, sizes, strict=True):
            answers.append(np.frombuffer(data[start : start + size], tensor.dtype).reshape(tensor.shape).copy())
            start += size
        return answers

    def answers(self, inputs: Sequence[NDArray[Any]], title: str = "") -> tuple[list[Outputs], float]:
        """Return every output for each input, and the median milliseconds of a run; says ``title`` as it goes."""
        found: list[Outputs] = []
        for number, x in enumerate(inputs, start=1):
            if title:
                self._program.say(f"{title}: picture {number} of {len(inputs)}")
            found.append(self.run(x))
        return found, statistics.median(self.times_ms)


def accelerator(options: RuntimeOptions, output: Output, facts: Facts) -> Accelerator:
    if output.gpu is None:
        return Accelerator(options.accelerator, "cpu")
    adapter = facts.gpu or output.backend
    return Accelerator(
        options.accelerator,
        "gpu",
        adapter=adapter,
        is_software=bool(vulkan.SOFTWARE_NAMES.search(adapter)),
        driver=output.backend,
        precision=options.gpu_precision,
    )


def threads(options: RuntimeOptions, facts: Facts) -> int:
    return options.threads or facts.cores


def _last(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "it says nothing")
