"""Writes a JSON Schema for each verb's --json output to docs/schema/, from the types of the records.

    python scripts/schema.py

tests/test_schema.py checks that the files are current, and real outputs against them.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from edge_ran import records

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schema"
# A file below docs/schema: the record that it describes. The first word is the verb.
OUTPUTS = {
    "benchmark": "edge_ran.bench:BenchReport",
    "benchmark-several": "edge_ran.bench:Bench",
    "compare": "edge_ran.bench:Ratio",
    "convert": "edge_ran.host.convert:ConvertResult",
    "dataset-build": "edge_ran.collect:Collection",
    "demo": "edge_ran.host.demo:DemoReport",
    "dataset-check": "edge_ran.dataset:DatasetSummary",
    "deploy": "edge_ran.deploy.rollout:Rollout",
    "devices": "edge_ran.targets.devices:DeviceList",
    "devices-clean": "edge_ran.targets.devices:Cleaned",
    "doctor": "edge_ran.doctor:Diagnosis",
    "evaluate": "edge_ran.evaluate:EvalReport",
    "export": "edge_ran.phone.site:Site",
    "fetch": "edge_ran.deploy.fetch:Fetched",
    "import": "edge_ran.host.importing.importer:ImportReport",
    "inspect-file": "edge_ran.host.importing.importer:NetworkFile",
    "inspect-model": "edge_ran.graph.describe:ModelDescription",
    "inspect-network": "edge_ran.host.networks:Summary",
    "inspect-run": "edge_ran.runs:RunDescription",
    "logs": "edge_ran.deploy.fleet:Log",
    "precisions": "edge_ran.host.precisions:Comparison",
    "profile": "edge_ran.bench:Profile",
    "quantize": "edge_ran.host.quantize:QuantizeResult",
    "rollback": "edge_ran.deploy.fleet:Changes",
    "run": "edge_ran.stream:FrameRecord",
    "run-summary": "edge_ran.stream:Summary",
    "serve": "edge_ran.phone.serve:Address",
    "status": "edge_ran.deploy.fleet:Fleet",
    "sustain": "edge_ran.bench:Sustained",
    "sweep": "edge_ran.bench:Sweep",
    "train": "edge_ran.host.train:TrainResult",
    "undeploy": "edge_ran.deploy.fleet:Changes",
    "verify": "edge_ran.verify:Verification",
    "verify-network": "edge_ran.host.parity:ParityReport",
}


def schema_of(name: str) -> dict[str, Any]:
    """Return the schema of one of ``OUTPUTS``."""
    module, _, kind = OUTPUTS[name].partition(":")
    return records.schema(getattr(importlib.import_module(module), kind))


def text_of(name: str) -> str:
    """Return the text of the schema's file."""
    return json.dumps(schema_of(name), indent=1) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.stem not in OUTPUTS:
            old.unlink()
    for name in OUTPUTS:
        (FOLDER / f"{name}.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()
