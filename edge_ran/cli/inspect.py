"""`edge-ran inspect`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    Attention,
    InputSize,
    Json,
    Learning,
    Mask,
    MaskTail,
    Shortcut,
    Upsampling,
    Width,
    app,
    emit,
    host_packages,
    human_size,
)

if TYPE_CHECKING:
    pass


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A network's name, a run folder or a .tflite file.")],
    classes: Annotated[int | None, typer.Option(help="Outputs of a network.", show_default="its own")] = None,
    input_size: InputSize = None,
    width: Width = 1.0,
    attention: Attention = "mixed",
    learning: Learning = "residual",
    mask: Mask = True,
    upsampling: Upsampling = "bilinear",
    mask_tail: MaskTail = None,
    shortcut: Shortcut = "identity",
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every operator of a .tflite.")] = False,
) -> None:
    """Tell what a network, a run or a model file is made of, and which accelerators will not take it."""
    path = Path(model)
    if path.is_dir():
        from edge_ran.runs import describe_run, open_run

        record = describe_run(open_run(path))
        emit(json, record, lambda: _run_folder_text(record))
    elif path.suffix == ".tflite" or path.exists():
        from edge_ran.graph import describe

        record = describe(path, every_operator=verbose)
        emit(json, record, lambda: _tflite_text(record))
    else:
        with host_packages("inspect NETWORK"):
            from edge_ran.host import networks
        summary = networks.summarise(
            networks.configure(
                model,
                input_size=input_size,
                classes=classes,
                width=width,
                attention=attention,
                learning=learning,
                mask=mask,
                upsampling=upsampling,
                mask_tail=mask_tail,
                shortcut=shortcut,
            )
        )
        emit(json, dataclasses.asdict(summary), lambda: _network_text(summary))


def _network_text(network: Any) -> str:
    from rich.table import Table

    table = Table("place", "output", "parameters", "multiply-adds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in network.parts:
        output = "x".join(map(str, part.output))
        share = f"{part.multiply_adds / network.multiply_adds:.1%}"
        table.add_row(part.place, output, f"{part.parameters:,}", f"{part.multiply_adds:,}", share)
    table.add_row("all", "", f"{network.parameters:,}", f"{network.multiply_adds:,}", "")
    size = network.input_size
    head = f"{network.network}: {size}x{size}x3 -> {network.classes} classes, {network.layers} layers"
    return f"{head}, {network.trainable_parameters:,} parameters to train\n\n{rendered(table)}"


def rendered(table: Any) -> str:
    """A rich table as plain lines."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(row.rstrip() for row in captured.get().splitlines())


def _run_folder_text(record: dict[str, Any]) -> str:
    files = [record["model"], *record["tflite"]]
    lines = [f"{human_size(file['size_bytes'])}  {file['file']}" for file in files]
    return "\n".join([record["run"], *_card_lines(record["card"]), "", *lines])


def _tflite_text(record: dict[str, Any]) -> str:
    from rich.table import Table

    total, multiply_adds = sum(record["operators"].values()), record["multiply_adds"]
    table = Table("operator", "count", "share", "multiply-adds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in record["operators"].items():
        spent = record["multiply_adds_by_operator"].get(name, 0)
        cost = (f"{spent:,}", f"{spent / multiply_adds:.1%}") if spent else ("", "")
        table.add_row(name, str(count), f"{count / total:.1%}", *cost)
    table.add_row("all", str(total), "", f"{multiply_adds:,}", "")

    left_out = record["xnnpack"]["not_delegated"]
    lines = [
        f"{record['file']}: {record['precision']}, {human_size(record['size_bytes']).strip()}, {record['sha256'][:12]}"
    ]
    lines += [f"  {end:<7} {_tensor_text(t)}" for end in ("inputs", "outputs") for t in record[end]]
    lines += _card_lines(record["card"]) if record["card"] else ["  it says nothing of itself: it carries no card"]
    lines += ["", "{table}", ""]
    lines.append(
        f"float operators: {record['float_operators']}; conversions between operators: "
        f"{record['quantize_between_operators']}; weights: {human_size(record['parameters_bytes']).strip()}"
    )
    lines.append(f"XNNPACK on the CPU takes {total - len(left_out)} of {total} operators")
    lines += _findings_text(left_out)
    warned = record["gpu_warnings"]
    lines.append(
        "GPU delegates:" if warned else "GPU delegates: nothing is known against it; edge-ran verify proves it"
    )
    lines += _findings_text(warned)
    lines += [
        f"{op['index']:>4} {op['operator']}  {', '.join(map(_tensor_text, op['outputs']))}"
        for op in record.get("operator_list", [])
    ]
    return "\n".join(lines).replace("{table}", rendered(table), 1)


def _card_lines(card: dict[str, Any]) -> list[str]:
    spec, labels, accuracy = card["input"], card["labels"], card["accuracy"]
    shown = ", ".join(labels[:10]) + (f", … ({len(labels)})" if len(labels) > 10 else "")
    mean, std = (" ".join(f"{number:g}" for number in spec[key]) for key in ("mean", "std"))
    lines = [
        f"  name    {card['name']}" + (f", {card['network']}" if card["network"] else ""),
        f"  labels  {shown or 'none'}",
        f"  takes   {spec['height']}x{spec['width']} {spec['color']}, {spec['fit']}, (pixel - {mean}) / {std}",
    ]
    if isinstance(accuracy.get("top1"), (int, float)):
        lines.append(f"  top-1   {accuracy['top1']:.2%} of {accuracy.get('images', '?')} images")
    if card["temperature"] != 1:
        lines.append(f"  scores  calibrated by temperature {card['temperature']:.2f}, fitted on validation pictures")
    if card["masks"]:
        lines.append(f"  masks   of {', '.join(card['masks'])}, as outputs behind the scores")
    if card["license"]:
        lines.append(f"  licence {card['license']}")
    return lines


def _tensor_text(t: dict[str, Any]) -> str:
    quantised = f", scale {t['scale']:.6g}, zero point {t['zero_point']}" if "scale" in t else ""
    return f"{t['name']} {'x'.join(map(str, t['shape']))} {t['dtype']}{quantised}{'' if t['fixed'] else ', resizable'}"


def _findings_text(found: list[dict[str, Any]]) -> list[str]:
    """One line for each kind of finding, with how many of which operators it is about."""
    kinds: dict[tuple[str, str], dict[str, int]] = {}
    for one in found:
        counts = kinds.setdefault((one["what"], one["remedy"]), {})
        if one["operator"]:
            counts[one["operator"]] = counts.get(one["operator"], 0) + 1
    return [
        f"  ! {', '.join(f'{count} {name}' for name, count in counts.items())}{': ' if counts else ''}{what}; {remedy}"
        for (what, remedy), counts in kinds.items()
    ]
