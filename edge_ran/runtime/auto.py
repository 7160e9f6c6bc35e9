"""``--accelerator auto``: is the GPU there, is it right, is it faster? And whether what it answers may be doubted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edge_ran.errors import InputError
from edge_ran.graph import Graph, gpu_warnings
from edge_ran.printable import many
from edge_ran.runtime import trial
from edge_ran.runtime.trial import Trial
from edge_ran.runtime.types import Inputs, RuntimeOptions


@dataclass(frozen=True)
class Verdict:
    """Which accelerator serves, ``gpu`` or ``cpu``, why, in one line, and in which arithmetic if it is the GPU.

    ``took_ms`` is what the trials took, 0 where they were remembered.
    """

    accelerator: str
    reason: str
    gpu_precision: str = ""
    took_ms: float = 0.0
    is_remembered: bool = False


def settle(graph: Graph, options: RuntimeOptions, inputs: Inputs | None) -> Verdict:
    """Choose between the GPU and the CPU for this model on this machine.

    Args:
        graph: the model.
        options: threads, runtime and GPU precision count; ``accelerator`` does not.
        inputs: gives real inputs, each of the model's input shape and dtype; None leaves the GPU out, unproved.
    """
    if found := trial.obstacle(graph, options):
        return Verdict("cpu", found)
    if known := _known_fault(graph):
        return Verdict("cpu", f"the GPU would be wrong: {known}")
    if inputs is None:
        return Verdict("cpu", "there are no pictures to prove the GPU on")
    try:
        proof = trial.try_accelerator(graph, options, inputs)
        verdict = decide(proof, options.gpu_precision)
        if proof.agreement is None or proof.agreement.is_right or not _may_be_its_precision(proof):
            return verdict
        full = trial.try_accelerator(graph, dataclasses.replace(options, gpu_precision="fp32"), inputs)
    except InputError as error:
        return Verdict("cpu", f"there are no pictures to prove the GPU on: {error}")
    other = decide(full, "fp32")
    if other.accelerator == "gpu":
        verdict = dataclasses.replace(other, reason=f"{other.reason}; fp16 is not as good: {proof.agreement}")
    return dataclasses.replace(verdict, took_ms=proof.took_ms + full.took_ms)


def decide(proof: Trial, precision: str) -> Verdict:
    """Turn a trial's figures, or the reason why there are none, into a verdict."""

    def verdict(accelerator: str, reason: str) -> Verdict:
        return Verdict(accelerator, reason, precision, proof.took_ms, proof.is_remembered)

    if proof.failure:
        return verdict("cpu", proof.failure)
    if proof.agreement is None or proof.accelerator is None or proof.ms is None or proof.cpu_ms is None:
        return verdict("cpu", "there are no pictures to prove the GPU on")
    gpu, cpu, adapter = f"{proof.ms:.3g} ms", f"{proof.cpu_ms:.3g} ms", proof.accelerator.adapter
    if not proof.agreement.is_right:
        return verdict("cpu", f"the GPU ({adapter}) is wrong: {proof.agreement}")
    if proof.ms >= proof.cpu_ms:
        return verdict("cpu", f"the CPU is faster: {cpu}, {gpu} on the GPU ({adapter})")
    return verdict("gpu", f"the GPU is faster: {gpu}, {cpu} on the CPU; {proof.agreement}")


def doubt(graph: Graph, options: RuntimeOptions, proof: Trial, inputs: Inputs | None) -> tuple[str, float]:
    """Return why the answers of a GPU or delegate that was asked for are not to be trusted, and what that took in ms.

    Empty where nothing is known. Half precision that turns answers which fp32 leaves alone counts, too; it costs a
    second trial, remembered as the first.
    """
    if options.delegate is None and (known := _known_fault(graph)):
        return f"the GPU is wrong: {known}" + (f"; {proof.agreement}" if proof.agreement else ""), 0.0
    name = "the GPU" if options.delegate is None else options.delegate.name
    if proof.agreement is None:
        return "", 0.0
    wrong = "" if proof.agreement.is_right else f"{name} is wrong: {proof.agreement}"
    if not _may_be_its_precision(proof):
        return wrong, 0.0
    full = trial.try_accelerator(graph, dataclasses.replace(options, gpu_precision="fp32"), inputs)
    if full.agreement and full.agreement.is_right and full.agreement.top1 > proof.agreement.top1:
        wrong = (
            f"half precision changes answers: top-1 agrees with the CPU on {proof.agreement.top1:.1%} of "
            f"{many(proof.agreement.pictures, 'picture')}, with --gpu-precision fp32 on {full.agreement.top1:.1%}"
        )
    return wrong, full.took_ms


def _may_be_its_precision(proof: Trial) -> bool:
    if proof.agreement is None or proof.accelerator is None or proof.accelerator.precision != "fp16":
        return False
    return not proof.agreement.is_right or proof.agreement.top1 < 1


def _known_fault(graph: Graph) -> str:
    """The first fault that ``gpu_warnings`` knows of this graph."""
    for finding in gpu_warnings(graph):
        if finding.wrong:
            return finding.what + (f" (operator {finding.operator.index})" if finding.operator else "")
    return ""
