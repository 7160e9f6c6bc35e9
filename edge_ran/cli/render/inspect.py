"""The text of `edge-ran inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from edge_ran.cli.app import human_size
from edge_ran.cli.render import plain
from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.card import ModelCard
    from edge_ran.graph.describe import FindingInfo, ModelDescription, TensorInfo
    from edge_ran.host.networks import Summary
    from edge_ran.runs import RunDescription


def network(found: Summary) -> str:
    table = Table("place", "output", "parameters", "multiply-adds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in found.parts:
        output = "x".join(map(str, part.output))
        share = f"{part.multiply_adds / found.multiply_adds:.1%}"
        table.add_row(part.place, output, f"{part.parameters:,}", f"{part.multiply_adds:,}", share)
    table.add_row("all", "", f"{found.parameters:,}", f"{found.multiply_adds:,}", "")
    size = found.input_size
    head = f"{found.network}: {size}x{size}x3 -> {many(found.classes, 'class')}, {many(found.layers, 'layer')}"
    return f"{head}, {found.trainable_parameters:,} trainable parameters\n\n{plain(table)}"


def run_folder(found: RunDescription) -> str:
    lines = [f"{human_size(file.size_bytes)}  {file.file}" for file in (found.model, *found.tflite)]
    return "\n".join([found.run, *_card(found.card), "", *lines])


def tflite(found: ModelDescription) -> str:
    total, left_out = sum(found.operators.values()), found.xnnpack.not_delegated
    lines = [f"{found.file}: {found.precision}, {human_size(found.size_bytes).strip()}, {found.sha256[:12]}"]
    for end, tensors in (("inputs", found.inputs), ("outputs", found.outputs)):
        lines += [f"  {end:<7} {_tensor(tensor)}" for tensor in tensors]
    lines += _card(found.card) if found.card else ["  no metadata: labels and preprocessing are unknown"]
    lines += ["", plain(_operators(found)), ""]
    lines.append(
        f"float operators: {found.float_operators}; conversions between operators: "
        f"{found.quantize_between_operators}; weights: {human_size(found.parameters_bytes).strip()}"
    )
    lines.append(f"XNNPACK on the CPU takes {total - len(left_out)} of {total} operators")
    lines += _findings(left_out)
    nothing = "GPU delegates: no known incompatibility; to compare results on the device: edge-ran verify MODEL"
    lines.append("GPU delegates:" if found.gpu_warnings else nothing)
    lines += _findings(found.gpu_warnings)
    lines += [f"{op.index:>4} {op.operator}  {', '.join(map(_tensor, op.outputs))}" for op in found.operator_list or ()]
    return "\n".join(lines)


def _operators(found: ModelDescription) -> Table:
    total = sum(found.operators.values())
    table = Table("operator", "count", "share", "multiply-adds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in found.operators.items():
        spent = found.multiply_adds_by_operator.get(name, 0)
        cost = (f"{spent:,}", f"{spent / found.multiply_adds:.1%}") if spent else ("", "")
        table.add_row(name, str(count), f"{count / total:.1%}", *cost)
    table.add_row("all", str(total), "", f"{found.multiply_adds:,}" if found.multiply_adds else "", "")
    return table


def _card(card: ModelCard) -> list[str]:
    spec, accuracy = card.input, card.accuracy
    shown = ", ".join(card.labels[:10]) + (f", … ({len(card.labels)})" if len(card.labels) > 10 else "")
    mean, std = (" ".join(f"{number:g}" for number in numbers) for numbers in (spec.mean, spec.std))
    assumed = ", assumed: its metadata do not say it" if card.assumes_scaling else ""
    lines = [
        f"  name    {card.name}" + (f", {card.network}" if card.network else ""),
        f"  labels  {shown or 'none'}",
        f"  input   {spec.height}x{spec.width} {spec.color}, {spec.fit}, (pixel - {mean}) / {std}{assumed}",
    ]
    if accuracy.top1 is not None:
        measured = f"; that of {accuracy.of}" if accuracy.of else ""
        lines.append(f"  top-1   {accuracy.top1:.2%} on {accuracy}{measured}")
    if card.temperature != 1:
        lines.append(f"  scores  calibrated with temperature {card.temperature:.2f}, fitted on validation pictures")
    if card.masks:
        lines.append(f"  masks   of {', '.join(card.masks)}, as outputs after the scores")
    if card.license:
        lines.append(f"  licence {card.license}")
    return [*lines, *_origin(card)]


def _origin(card: ModelCard) -> list[str]:
    """What the network was trained on, and what made the file; nothing where the card does not say it."""
    training, versions, lines = card.training, card.versions, []
    if training.description or training.author:
        lines.append(f"  origin  {' by '.join(filter(None, (training.description, training.author)))}")
    if training.train_images:
        parts = f"{training.train_images:,} to train and {training.val_images:,} to validate"
        by = f", split by {training.split_by}" if training.split_by else ""
        none = f", {training.none_images:,} of none of the classes" if training.none_images else ""
        lines.append(f"  data    {training.dataset or 'unknown'}: {parts}{by}{none}")
    if training.quantisation:
        lines.append(
            f"  int8    quantisation-aware training; {training.quantisation.kept or 'fine-tuned'} weights kept"
        )
    names = {"edge-ran": versions.edge_ran, "TensorFlow": versions.tensorflow, "tf_keras": versions.tf_keras}
    if known := [f"{name} {version}" for name, version in names.items() if version]:
        lines.append(f"  made by {', '.join(known)}")
    return lines


def _tensor(t: TensorInfo) -> str:
    quantised = "" if t.scale is None else f", scale {t.scale:.6g}, zero point {t.zero_point}"
    return f"{t.name} {'x'.join(map(str, t.shape))} {t.dtype}{quantised}{'' if t.fixed else ', resizable'}"


def _findings(found: Sequence[FindingInfo]) -> list[str]:
    """One line for each kind of finding, with the number of operators that it is about."""
    kinds: dict[tuple[str, str], dict[str, int]] = {}
    for one in found:
        counts = kinds.setdefault((one.what, one.remedy), {})
        if one.operator:
            counts[one.operator] = counts.get(one.operator, 0) + 1
    return [
        f"  ! {', '.join(f'{count} {name}' for name, count in counts.items())}{': ' if counts else ''}{what}; {remedy}"
        for (what, remedy), counts in kinds.items()
    ]
