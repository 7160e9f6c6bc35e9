"""Options that most verbs have, as groups for ``verb``: what is printed, the accelerator, the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.runtime import RuntimeOptions


@dataclass(frozen=True)
class OutputOptions:
    """How a verb shows what it found."""

    PANEL: ClassVar[str] = "Output"

    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show messages of the runtime, and tracebacks of errors.")
    ] = False


@dataclass(frozen=True)
class AcceleratorOptions:
    """Which processor runs the model; ``runtime`` makes ``RuntimeOptions`` of it."""

    PANEL: ClassVar[str] = "Accelerator"

    accelerator: Annotated[
        str,
        typer.Option("--accelerator", metavar="auto|gpu|cpu", help="auto: the fastest that agrees with the CPU."),
    ] = "auto"
    cpu: Annotated[bool, typer.Option("--cpu", help="The same as --accelerator cpu.")] = False
    gpu: Annotated[bool, typer.Option("--gpu", help="The same as --accelerator gpu.")] = False
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Exit 1 if the accelerator is not available; do not use the CPU.")
    ] = False
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 = all cores.")] = 0
    delegate: Annotated[
        Path | None, typer.Option("--delegate", metavar="LIBRARY", help="A TFLite external delegate of a vendor.")
    ] = None
    delegate_option: Annotated[
        list[str] | None,
        typer.Option("--delegate-option", metavar="KEY=VALUE", help="Option of the delegate; may be repeated."),
    ] = None
    gpu_precision: Annotated[
        str, typer.Option("--gpu-precision", metavar="fp16|fp32", help="Arithmetic on the GPU.")
    ] = "fp16"

    def runtime(self, verbose: bool = False) -> RuntimeOptions:
        """Return what is asked of the runtime. Raises UsageError where options exclude each other."""
        from edge_ran.runtime import RuntimeOptions

        pairs = []
        for text in self.delegate_option or []:
            key, equals, value = text.partition("=")
            if not (key and equals):
                raise UsageError(f"--delegate-option {text!r} is not KEY=VALUE", "for instance num_threads=2")
            pairs.append((key, value))
        return RuntimeOptions(
            accelerator="cpu" if self.cpu else "gpu" if self.gpu else self.accelerator,
            threads=self.threads,
            delegate=self.delegate,
            delegate_options=tuple(pairs),
            gpu_precision=self.gpu_precision,
            fallback=not self.no_fallback,
            verbose=verbose,
        )


ON_CPU = AcceleratorOptions(accelerator="cpu")


@dataclass(frozen=True)
class DeviceOptions:
    """Where a verb runs: this machine, or a board."""

    PANEL: ClassVar[str] = "Device"

    device: Annotated[
        str, typer.Option("--device", "-d", metavar="DEVICE", help="ssh://user@host[:port], NAME or FILE.toml.")
    ] = "local"
    install: Annotated[
        bool, typer.Option("--install", help="Let pip install missing packages there, in a folder of its own.")
    ] = False


@dataclass(frozen=True)
class PageDeviceOptions(DeviceOptions):
    """Where a verb runs that a page in a browser can do as well."""

    device: Annotated[
        str,
        typer.Option(
            "--device", "-d", metavar="DEVICE", help="ssh://user@host[:port], phone, browser, NAME or FILE.toml."
        ),
    ] = "local"


@dataclass(frozen=True)
class AnyDeviceOptions(DeviceOptions):
    """Where a verb runs that every kind of device can do."""

    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="ssh://user@host[:port], adb:SERIAL, phone, browser, NAME or FILE.toml.",
        ),
    ] = "local"
