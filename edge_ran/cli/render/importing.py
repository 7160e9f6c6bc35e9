"""The text of `edge-ran import`, and of `edge-ran inspect` for a file that can be imported."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.host.importing.importer import ImportReport, NetworkFile, ReadNetwork


def imported(found: ImportReport) -> str:
    network = found.network
    lines = [
        f"{found.run}: {found.source} of Keras {network.keras or 'unknown'}, {network.name}, {_size(network)}",
        *_passes(network),
        f"  logits as the file's network gives them: largest difference {found.difference:.1e} of the largest "
        f"on {many(found.pictures, 'picture')}; after the rewrites {found.rewritten_difference:.1e}",
    ]
    if found.expected_difference is not None:
        lines.append(f"  recorded outputs: largest difference {found.expected_difference:.1e}")
    lines.append(f"  pixels: {found.preprocessing}")
    lines += [f"    {t.name:6} top-1 {t.top1:.1%}, log-likelihood {t.log_likelihood:.3f}" for t in found.trials]
    if network.gates:
        lines.append(f"  {many(network.gates, 'attention gate')} found: convert --attention gives their masks")
    lines += [f"  note: {note}" for note in network.notes]
    return "\n".join([*lines, f"next: edge-ran convert --int8 {shlex.quote(found.run)}"])


def network_file(found: NetworkFile) -> str:
    network = found.network
    lines = [
        f"{found.path}: Keras {network.keras or 'of an unknown version'}, {_size(network)}, "
        f"{many(network.gates, 'attention gate')}",
        *_passes(network),
    ]
    lines += [f"  note: {note}" for note in network.notes]
    lines += [f"  import asks for {one}" for one in found.asks]
    return "\n".join([*lines, f"next: edge-ran import {shlex.quote(found.path)}"])


def _size(network: ReadNetwork) -> str:
    size = f"{network.height}x{network.width} -> {many(network.classes, 'class')}"
    return f"{size}, {many(network.layers, 'layer')}, {many(network.parameters, 'parameter')}"


def _passes(network: ReadNetwork) -> list[str]:
    return [f"  {one.places:3d} x {one.name}" for one in network.passes]
