"""The classic TFLite Interpreter, of LiteRT or of tflite-runtime: the CPU (XNNPACK) and external delegates.

On the CPU it and LiteRT's newer CompiledModel run the same XNNPACK kernels: measured at batch 1 their medians are the
same within the noise. The Interpreter takes 6 MB less, is silent, lets other Python threads run during an inference,
serves old boards with the same code, and is the only one that takes a vendor's delegate. So it is the CPU's runtime.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import machine
from edge_ran.errors import EnvironmentMissing, InputError, unimportable
from edge_ran.graph import Graph, TensorSpec
from edge_ran.python_command import BEFORE_NUMPY_2, pip
from edge_ran.runtime import huge_pages, output_capture
from edge_ran.runtime.types import Accelerator, Delegation

# What the interpreters raise for a file that they cannot load or run; UnicodeDecodeError, a ValueError, for names.
_REFUSALS = (RuntimeError, ValueError, MemoryError)


_ON_OLD_BOARDS = "install 'edge-ran[tflite-runtime]'"
WHEELS = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}  # as pip knows them


@dataclass(frozen=True)
class Package:
    """An installed package that has the Interpreter."""

    name: str  # "litert" or "tflite-runtime"
    module: str
    version: str


def installed() -> list[Package]:
    """Return the runtimes of this environment, the preferred one first. Imports nothing."""
    packages = []
    for name, module, distributions in (
        ("litert", "ai_edge_litert.interpreter", ("ai-edge-litert", "ai-edge-litert-nightly")),
        ("tflite-runtime", "tflite_runtime.interpreter", ("tflite-runtime",)),
    ):
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            packages.append(Package(name, module, _version(distributions)))
    return packages


def package(name: str = "") -> Package:
    """Return the runtime that serves: LiteRT where it is installed, else tflite-runtime, or the one of that name.

    Raises:
        EnvironmentMissing: it is not installed.
    """
    found = [package for package in installed() if name in ("", package.name)]
    if not found:
        raise EnvironmentMissing(
            f"{name or 'no TFLite runtime'} is {'not ' if name else ''}installed",
            f"{pip('install ai-edge-litert')}  (on an old board: {pip(_ON_OLD_BOARDS)})",
        )
    return found[0]


def load(package: Package) -> Any:
    """Import the package's interpreter module.

    Raises:
        EnvironmentMissing: it does not fit this Python, NumPy or machine.
    """
    if package.name == "tflite-runtime" and int(np.__version__.partition(".")[0]) >= 2:
        # It was compiled against NumPy 1 and would abort the import with pages of text.
        raise EnvironmentMissing(
            f"tflite-runtime {package.version} needs NumPy below 2, this is {np.__version__}",
            pip(BEFORE_NUMPY_2),
        )
    try:
        with output_capture.captured():
            return importlib.import_module(package.module)
    except Exception as error:  # a broken wheel raises whatever its loader likes
        why, remedy = unimportable(error, pip(f"install --force-reinstall {WHEELS[package.name]} numpy"))
        raise EnvironmentMissing(f"{package.name} {package.version} cannot be imported: {why}", remedy) from error


class InterpreterRuntime:
    """A ``Runtime`` on the classic Interpreter."""

    def __init__(
        self,
        graph: Graph,
        package: Package,
        threads: int,
        accelerator: Accelerator,
        delegate: Any = None,
        plain: bool = False,
        verbose: bool = False,
    ) -> None:
        """Load the model.

        Args:
            graph: a verified file (``read_graph``): the native loader does not survive every malformed one.
            package: whose Interpreter.
            threads: CPU threads; 0 = every core that this process may use.
            accelerator: what ``accelerator`` shall say.
            delegate: an external delegate, loaded by the package's ``load_delegate``.
            plain: keep XNNPACK out, so that ``delegation`` is the delegate's alone.
            verbose: pass the runtime's messages on.

        Raises:
            InputError: the runtime, or the delegate, refuses the model.
        """
        module = load(package)
        self.name, self.version, self._path = package.name, package.version, graph.path
        self.input, self.outputs = graph.inputs[0], graph.outputs
        self.threads = threads or machine.available_cores()
        self.accelerator = accelerator
        self.trial_ms = 0.0
        try:
            with output_capture.captured(verbose) as said, huge_pages.gathered():
                resolvers = module.OpResolverType
                self._interpreter = module.Interpreter(
                    model_path=str(graph.path),
                    num_threads=self.threads,
                    experimental_delegates=[delegate] if delegate else None,
                    experimental_op_resolver_type=(
                        resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else resolvers.AUTO
                    ),
                )
                self._size_input(graph.inputs)
                self._interpreter.allocate_tensors()
            self._input_indices = [detail["index"] for detail in self._interpreter.get_input_details()]
            self._output_indices = [detail["index"] for detail in self._interpreter.get_output_details()]
            self.delegation = self._delegation(accelerator.adapter or "XNNPACK")
        except _REFUSALS as error:
            raise self._refused(error) from error
        finally:
            self.chatter = said.text

    def _size_input(self, inputs: tuple[TensorSpec, ...]) -> None:
        """Resize the inputs whose shape in the file is a placeholder and that were given another one."""
        for detail, tensor in zip(self._interpreter.get_input_details(), inputs, strict=True):
            if tensor.open_axes and tuple(detail["shape"]) != tensor.shape:
                self._interpreter.resize_tensor_input(detail["index"], tensor.shape)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        given = tuple(zip(self._input_indices, inputs, strict=True))
        try:
            if self.input.open_axes and inputs[0].shape != self.input.shape:  # the next picture is of another size
                self.input = dataclasses.replace(self.input, shape=inputs[0].shape)
                self._interpreter.resize_tensor_input(self._input_indices[0], inputs[0].shape)
                self._interpreter.allocate_tensors()
            for index, x in given:
                self._interpreter.set_tensor(index, x)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._output_indices]
        except _REFUSALS as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split()) or "it takes too much memory"
        return InputError(
            f"{self._path}: {self.name} cannot run it: {reason}",
            f"look at it: edge-ran inspect {shlex.quote(str(self._path))}",
        )

    def close(self) -> None:
        self._interpreter = None

    def __enter__(self) -> InterpreterRuntime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _delegation(self, engine: str) -> Delegation:
        # The list keeps the replaced operators and adds one DELEGATE for each partition. What is still run is what
        # one meets on the way back from the outputs when every tensor comes from a DELEGATE if one makes it.
        operators = self._interpreter._get_ops_details()
        pieces = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
        plain = [operator for operator in operators if operator["op_name"] != "DELEGATE"]
        maker = {int(tensor): operator for operator in (*plain, *pieces) for tensor in operator["outputs"]}
        wanted, seen, kept = list(self._output_indices), set(), 0
        while wanted:
            operator = maker.get(int(wanted.pop()))
            if operator is None or operator["index"] in seen:
                continue
            seen.add(operator["index"])
            kept += operator["op_name"] != "DELEGATE"
            wanted.extend(int(tensor) for tensor in operator["inputs"])
        return Delegation(engine, len(plain), len(plain) - kept if pieces else 0, len(pieces))


def _version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
