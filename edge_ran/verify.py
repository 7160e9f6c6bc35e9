"""Compare the outputs of every accelerator of this device with the CPU's; find the operators that one gets wrong.

The operators are found by bisection. A part of the graph gets the CPU's own values as its inputs, so that its outputs
are wrong only if one of its own operators is. A part that is right is finished; a wrong one is cut in two. So every
wrong operator is found, also behind another one, with a few parts for each. Each part runs in a child process, because
an operator may crash.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import machine, records
from edge_ran.card import Overrides
from edge_ran.classifier import real_inputs
from edge_ran.errors import AcceleratorError, GateError
from edge_ran.files import TemporaryFolder, read_bytes, write_bytes
from edge_ran.graph import Graph, Operator, check_runnable, gpu_warnings, read_graph
from edge_ran.graph.subgraph import borders, computing, cut
from edge_ran.model_interface import read_interface
from edge_ran.preprocess import Preprocessor
from edge_ran.runtime import Accelerator, RuntimeOptions, first_load, interpreter, output_capture, trial
from edge_ran.runtime.agreement import LARGEST_ERROR, Agreement, Outputs, check_finite, finite, relative_error
from edge_ran.runtime.types import GPU_PRECISIONS

SEARCH_PICTURES = 3
# Rounding moves a quantised number by a step or two in one operator and by some in a slice.
FEWEST_STEPS = 4
MOST_REFUSED = 8  # then it is the driver, not the operators
MOST_TOGETHER = 8  # accelerators merge a few neighbours; over a longer run of right ones it is rounding that adds up
# Of int8 rounding that adds up: no operator is wrong.
_IN_FLOAT = "convert with --fp16 for it: it computes in float, and rounds to int8 in other places than the CPU"

Progress = Callable[[int, int], None]
# Answers a part of a graph, on an accelerator: for each run an array for each input -> for each run every output.
Answer = Callable[[Graph, list[list[NDArray[Any]]]], list[list[NDArray[Any]]]]


@dataclass(frozen=True)
class WrongOperator:
    """An operator that an accelerator computes wrongly, or refuses, when its inputs are the CPU's values.

    ``relative_error`` is that of its output (``agreement.relative_error``); ``what`` is a sentence about it.
    """

    index: int
    name: str
    output: str
    shapes: str
    relative_error: float
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One accelerator. ``agreement`` is None where it could not be used, and ``reason`` says why.

    ``precision`` is what it really computed in; ``ms`` and ``cpu_ms`` are medians of an inference; ``is_broken``: it is
    there, but crashed, hung or failed.
    """

    accelerator: str
    precision: str
    adapter: str
    driver: str
    is_software: bool
    agreement: Agreement | None
    ms: float | None
    cpu_ms: float | None
    reason: str = ""
    wrong_operators: tuple[WrongOperator, ...] = ()
    is_broken: bool = False

    @records.derived
    def is_right(self) -> bool:
        """Whether it is there, its differences are rounding, and no operator is known to be wrong."""
        return self.agreement is not None and self.agreement.is_right and not self.wrong_operators


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found; ``runtime`` and ``version`` are those of what ran the model."""

    model: str
    runtime: str
    version: str
    checks: tuple[Check, ...]

    @property
    def wrong(self) -> tuple[Check, ...]:
        """The accelerators that are there and wrong, or broken."""
        return tuple(one for one in self.checks if one.is_broken or (one.agreement is not None and not one.is_right))


def verify(
    path: Path,
    options: RuntimeOptions,
    pictures: Path | None = None,
    count: int = 32,
    progress: Progress | None = None,
    overrides: Overrides | None = None,
) -> Verification:
    """Compare every accelerator of this device, or the options' delegate, with the CPU.

    Args:
        path: a ``.tflite`` image classifier.
        options: threads, delegate and runtime count.
        pictures: a folder of pictures; None takes ``calibration_data/``.
        count: how many of them at most.
        progress: called with (operators judged, operators) while wrong ones are searched.
        overrides: what replaces the metadata's word.

    Raises:
        InputError: no image classifier, no pictures, or answers on the CPU that are not finite numbers.
        AcceleratorError: the delegate's library is missing or broken.
    """
    interface = read_interface(path, overrides)
    graph = interface.graph
    inputs = real_inputs(Preprocessor(interface.spec, interface.tensor), pictures, count)
    package = interpreter.package(options.runtime)
    cpu_answers(graph, options, inputs)
    checks: list[Check] = []
    if options.delegate is not None:
        checks.append(_check_delegate(graph, options, inputs, progress))
    else:
        checks += check_precisions(options, lambda wanted, known: _check_gpu(graph, wanted, inputs, progress, known))
    return Verification(str(path), package.name, package.version, tuple(checks))


def cpu_answers(graph: Graph, options: RuntimeOptions, inputs: Sequence[NDArray[Any]]) -> list[Outputs]:
    """Return every output of this machine's CPU for each input: what accelerators are held against.

    Raises:
        InputError: the file cannot be run, crashes, or gives numbers that are not finite.
    """
    check_runnable(graph)
    first_load.check(graph, interpreter.package(options.runtime))
    with _cpu(graph, options) as cpu:
        found = [cpu.run(x) for x in inputs]
    check_finite(found, graph.path)
    return list(found)


def check_precisions(options: RuntimeOptions, check: Callable[[RuntimeOptions, Collection[int]], Check]) -> list[Check]:
    """Check a GPU in each precision, until one is not to be had.

    Args:
        options: what else the model is run with.
        check: checks one; it is given the options, and the operators that were wrong in the precisions before.
    """
    found: list[Check] = []
    for precision in GPU_PRECISIONS:
        wanted = dataclasses.replace(options, accelerator="gpu", gpu_precision=precision)
        found.append(check(wanted, {one.index for before in found for one in before.wrong_operators}))
        if found[-1].precision != precision:  # no GPU, or one without fp16, which then computed in fp32
            break
    return found


def gate(found: Verification) -> None:
    """Raise GateError where an accelerator is wrong."""
    if found.wrong:
        names = ", ".join(f"{check.accelerator} {check.precision}".strip() for check in found.wrong)
        how = "breaks" if all(check.is_broken for check in found.wrong) else "is wrong on"
        maker = "the delegate's vendor" if found.wrong[0].accelerator == "delegate" else "LiteRT"
        remedies = {one.remedy for check in found.wrong for one in check.wrong_operators}
        what = "the operators" if remedies else "it"
        remedy = f"--cpu is right; {_IN_FLOAT if remedies == {_IN_FLOAT} else f'report {what} to {maker}'}"
        if any(check.accelerator == "cpu" for check in found.wrong):  # of another device
            remedy = f"its CPU does not answer as this one: use another version of {found.runtime} there"
        raise GateError(f"{found.model} {how} {names}", remedy)


def _check_gpu(
    graph: Graph,
    options: RuntimeOptions,
    inputs: Sequence[NDArray[Any]],
    progress: Progress | None,
    suspects: Collection[int],
) -> Check:
    if found := trial.obstacle(graph, options):
        return Check("gpu", "", "", "", False, None, None, None, found)
    known = {f.operator.index: f for f in gpu_warnings(graph) if f.operator is not None}
    anyway = any(f.wrong for f in known.values())
    check = _check("gpu", graph, options, inputs, progress, {*suspects, *known}, search_anyway=anyway)
    wrong = tuple(
        dataclasses.replace(one, remedy=known[one.index].remedy if one.index in known else one.remedy)
        for one in check.wrong_operators
    )
    return dataclasses.replace(check, wrong_operators=wrong)


def _check_delegate(
    graph: Graph, options: RuntimeOptions, inputs: Sequence[NDArray[Any]], progress: Progress | None
) -> Check:
    check = _check("delegate", graph, options, inputs, progress)
    if check.agreement is None and not check.adapter:
        raise AcceleratorError(check.reason, "check --delegate and --delegate-option")
    return check


def _check(
    name: str,
    graph: Graph,
    options: RuntimeOptions,
    inputs: Sequence[NDArray[Any]],
    progress: Progress | None,
    suspects: Collection[int] = (),
    search_anyway: bool = False,
) -> Check:
    found = trial.attempt(graph, options, inputs)
    got, agreement, reason = found.accelerator, found.agreement, found.failure
    if options.delegate is not None and found.delegation is not None and not found.delegation.delegated:
        agreement, reason = None, "it takes no operator of this model"
    wrong: tuple[WrongOperator, ...] = ()
    crashed = found.is_broken and not found.is_hung and options.delegate is None
    if (search_anyway and agreement) or crashed or (agreement and not agreement.is_right):
        few = inputs[:SEARCH_PICTURES]
        wrong = find_wrong_operators(
            graph,
            lambda part, fed: trial.answers(part, options, fed),
            few,
            options.threads,
            progress,
            suspects,
            agreement.allowed_error if agreement else LARGEST_ERROR,
        )
    return Check(
        accelerator=name,
        precision=got.precision if got else "",
        adapter=got.adapter if got else "",
        driver=got.driver if got else "",
        is_software=bool(got and got.is_software),
        agreement=agreement,
        ms=found.ms,
        cpu_ms=found.cpu_ms,
        reason=reason,
        wrong_operators=wrong,
        is_broken=found.is_broken,
    )


def find_wrong_operators(
    graph: Graph,
    answer: Answer,
    inputs: Sequence[NDArray[Any]],
    threads: int = 0,
    progress: Progress | None = None,
    suspects: Collection[int] = (),
    allowed_error: float = LARGEST_ERROR,
) -> tuple[WrongOperator, ...]:
    """Find every operator that an accelerator gets wrong, or refuses, when it is given the CPU's values.

    Operators that are right alone and wrong together, merged by the accelerator, are found as the shortest run of them.

    Args:
        graph: the model.
        answer: runs a part of it on the accelerator; raises AcceleratorError where that refuses or crashes.
        inputs: a few of the model's inputs, each (1, H, W, 3).
        threads: for the CPU.
        progress: called with (operators judged, operators).
        suspects: indices of operators to try alone from the start; if it is they, the search is quicker.
        allowed_error: relative error of an output that is rounding (``agreement.allowed``).
    """
    operators = computing(graph)
    search = _Search(graph, answer, inputs, RuntimeOptions(threads=threads), allowed_error)
    runs = itertools.groupby(operators, key=lambda op: _suspicion(op, operators, suspects))
    judged = 0
    with TemporaryFolder() as folder:
        search.file = Path(folder) / "slice.tflite"
        for _, part in runs:
            run = list(part)
            search.look(run)
            judged += len(run)
            if progress:
                progress(judged, len(operators))
            if sum(one.relative_error == 0 for one in search.found) >= MOST_REFUSED:
                break
        if not search.found and len(operators) > 1 and suspects:
            search.look(operators)  # none alone: one of those suspected, together with a neighbour
    return tuple(sorted(search.found, key=lambda one: one.index))


def _suspicion(op: Operator, operators: Sequence[Operator], suspects: Collection[int]) -> int:
    """The part that an operator is looked at in: a suspect is alone, a padding with the suspected pooling after it."""
    following = next((o for o in operators if o.index > op.index), None)
    if following is not None and following.index in suspects and op.name in ("PAD", "PADV2"):
        return following.index
    return op.index if op.index in suspects else -1


class _Search:
    """Looks for wrong operators by halves; a part that is right is done with."""

    def __init__(
        self, graph: Graph, answer: Answer, inputs: Sequence[NDArray[Any]], options: RuntimeOptions, allowed: float
    ) -> None:
        self.graph, self.answer, self.inputs, self.options, self.allowed = graph, answer, inputs, options, allowed
        self.model = read_bytes(graph.path, "model")
        self.values = _Values(graph, options)
        self.file = Path()
        self.found: list[WrongOperator] = []

    def judge(self, part: list[Operator]) -> tuple[float, str]:
        reads, gives = borders(self.graph, part)
        if not reads or not gives or any(tensor.dtype == "resource" for tensor in (*reads, *gives)):
            return 0.0, ""  # a variable connects it with others: it is judged together with them
        write_bytes(self.file, cut(self.model, self.graph, part))
        sliced = read_graph(self.file)
        return _judge(self.graph, part, sliced, self.answer, self.values, self.inputs, self.options, self.allowed)

    def look(self, part: list[Operator]) -> None:
        """Add what is wrong in a run of operators to ``found``."""
        error, refusal = self.judge(part)
        if not (error or refusal) or sum(one.relative_error == 0 for one in self.found) >= MOST_REFUSED:
            return
        if len(part) == 1:
            self.found.append(_wrong_operator(part[0], error, refusal))
            return
        before, middle = len(self.found), len(part) // 2
        self.look(part[:middle])
        self.look(part[middle:])
        if len(self.found) == before:  # each half is right: they are wrong together
            together = self.narrow(part)
            wrong = _wrong_operator(together[-1], *self.judge(together))
            if len(together) > MOST_TOGETHER and wrong.relative_error:
                self.found.append(_added_up(wrong, together))
                return
            others = ", ".join(f"{op.index} {op.name}" for op in together[:-1])
            self.found.append(dataclasses.replace(wrong, what=f"{wrong.what}, together with {others} before it"))

    def narrow(self, part: list[Operator]) -> list[Operator]:
        """Return the shortest run within a wrong one that is still wrong, as far as halving its ends finds it."""
        low, high = 0, len(part) - 1  # the last start that leaves it wrong
        while low < high:
            start = (low + high + 1) // 2
            low, high = (start, high) if any(self.judge(part[start:])) else (low, start - 1)
        part = part[low:]
        low, high = 1, len(part)  # the first end
        while low < high:
            end = (low + high) // 2
            low, high = (low, end) if any(self.judge(part[:end])) else (end + 1, high)
        return part[:low]


def _judge(
    graph: Graph,
    part: list[Operator],
    sliced: Graph,
    answer: Answer,
    values: _Values,
    inputs: Sequence[NDArray[Any]],
    options: RuntimeOptions,
    allowed_error: float,
) -> tuple[float, str]:
    """Return the largest relative error of a slice's outputs, 0 where that is rounding, and why it was refused."""
    reads, _ = borders(graph, part)
    fed = [values.of(x, [t.index for t in reads]) for x in inputs]
    with _cpu(sliced, options) as cpu:
        reference = [cpu.run(*x) for x in fed]
    try:
        answers = answer(sliced, fed)
    except AcceleratorError as error:
        return 0.0, str(error)
    worst = 0.0
    for place, tensor in enumerate(sliced.outputs):
        scale = tensor.scale if tensor.scale > 0 else 1.0
        right = np.stack([outputs[place] for outputs in reference]).astype(np.float64) * scale
        other = finite(np.stack([outputs[place] for outputs in answers]).astype(np.float64) * scale)
        off = relative_error(right, other, tensor.scale)
        if off > allowed_error and not np.abs(other - right).max() <= FEWEST_STEPS * tensor.scale:
            worst = max(worst, off)
    return worst, ""


def _wrong_operator(operator: Operator, error: float, refusal: str) -> WrongOperator:
    shapes = " x ".join(str(list(t.shape)) for t in operator.inputs[:2])
    strides = (operator.options.get("stride_h"), operator.options.get("stride_w"))
    if strides != (None, None):
        shapes += f" stride {strides[0]}x{strides[1]}"
    dtype, output = next(((t.dtype, t.name) for t in operator.outputs), ("", ""))
    what = f"refused: {refusal}" if refusal else f"its {dtype} output is {error:.0%} off, given the CPU's inputs"
    return WrongOperator(operator.index, operator.name, output, shapes, error, what)


def _added_up(last: WrongOperator, together: Sequence[Operator]) -> WrongOperator:
    """Say of a long run of operators, each of them right, what makes the last one's output differ."""
    first = together[0]
    what = f"{last.what}: rounding that adds up over {len(together)} operators, from {first.index} {first.name} on; "
    return dataclasses.replace(
        last,
        what=f"{what}none is wrong alone or with its neighbours",
        remedy=_IN_FLOAT,
    )


def _cpu(graph: Graph, options: RuntimeOptions) -> interpreter.InterpreterRuntime:
    package = interpreter.package(options.runtime)
    return interpreter.InterpreterRuntime(graph, package, options.threads, Accelerator("cpu", "cpu"))


class _Values:
    """The CPU's value of any tensor, for a given input."""

    def __init__(self, graph: Graph, options: RuntimeOptions) -> None:
        module = interpreter.load(interpreter.package(options.runtime))
        with output_capture.captured():
            self._interpreter = module.Interpreter(
                model_path=str(graph.path),
                num_threads=options.threads or machine.available_cores(),
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
        self._input = graph.inputs[0].index

    def of(self, x: NDArray[Any], tensors: Sequence[int]) -> list[NDArray[Any]]:
        """Run the model on ``x`` and return those tensors, by their index in the file."""
        self._interpreter.set_tensor(self._input, x)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in tensors]
