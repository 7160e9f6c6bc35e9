"""What ``train`` and ``quantize`` found, as text."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.host.latency_budget import BudgetResult
    from edge_ran.host.quantize import QuantizeResult
    from edge_ran.host.train import TrainResult


def trained(result: TrainResult) -> str:
    """The network, its accuracies and the next command."""
    begun = "nothing" if result.start == "none" else result.start
    done = f"{many(result.parameters, 'parameter')}, {many(result.epochs, 'epoch')} in {result.seconds:.0f} s"
    if result.worker:
        return f"worker {result.worker}: {done}; worker 0 writes {result.run}"
    lines = [f"{result.network} from {begun}: {done}"]
    if not result.epochs:
        lines.append("the last layer was fitted; after it was judged, to the validation pictures as well")
    elif result.best_epoch == 0:
        lines.append(
            "no epoch was clearly better than the first weights with only the last layer fitted: these were kept, and "
            "that layer was fitted to the validation pictures as well"
        )
    for name, top1, images in (
        ("validation", result.validation_top1, result.validation_images),
        ("test", result.test_top1, result.test_images),
    ):
        if top1 is not None:
            lines.append(f"{name}: top-1 {top1:.2%} of {many(images, 'picture')}")
    lines.append(f"next: edge-ran convert --int8 {shlex.quote(result.run)}")
    return "\n".join(lines)


def candidates(found: BudgetResult) -> str:
    """The networks that were measured for a latency budget, the fastest first."""
    lines = [f"int8 inference on {found.device}, at most {found.budget_ms:g} ms:"]
    for one in found.candidates:
        verdict = "trained" if one == found.chosen else "fits" if one.fits else "too slow"
        lines.append(
            f"  {one.network:<10} {one.input_size:>4} px  width {one.width:<4g} {one.multiply_adds / 1e6:>6.1f} M "
            f"multiply-adds {one.median_ms:>8.3f} ms  {verdict}"
        )
    return "\n".join(lines)


def quantised(result: QuantizeResult) -> str:
    """What is in int8 and what is not, the accuracies before and after, and the next command."""
    lines = [f"{result.network}: {result.int8_tensors} tensors in int8, {result.seconds:.0f} s"]
    if result.float_layers:
        lines.append(f"still in float: {', '.join(result.float_layers)}")
    if result.top1 is not None:
        lines.append(
            f"{result.split}: float {result.float_top1:.2%}, int8 calibrated only {result.calibrated_top1:.2%}, "
            f"int8 {result.top1:.2%} of {many(result.images, 'picture')}; kept the {result.kept} weights"
        )
    if result.has_seen:
        lines.append(
            "the network has learnt from these pictures, or may have: they show what int8 changes, not how accurate "
            "it is"
        )
    if result.test_top1 is not None:
        lines.append(
            f"test: float {result.float_test_top1:.2%}, int8 {result.test_top1:.2%} of "
            f"{many(result.test_images, 'picture')}"
        )
    lines.append(f"next: edge-ran convert --int8 {shlex.quote(result.run)}")
    return "\n".join(lines)
