"""Options that several verbs share, as typed objects, and ``verb``, which lets a verb's function take them.

A dataclass here is a group of options: each field is one option, its default the option's default. A verb takes the
group as one parameter. ``verb`` shows Typer the single options and gives the function the object. ``PANEL`` is the
group's heading in ``--help``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import typer

from edge_ran.cli.app import app
from edge_ran.cli.command import VerbCommand
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.card import Overrides
    from edge_ran.dataset import Dataset, Reading
    from edge_ran.runtime import RuntimeOptions

_F = TypeVar("_F", bound=Callable[..., None])


@dataclass(frozen=True)
class Only:
    """Part of ``Annotated[SomeOptions, Only("threads")]``: the verb has these options of the group, no others."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


def verb(function: _F, group: typer.Typer = app) -> _F:
    """Add a verb to the application or to a ``group`` of verbs, with every group of options among its parameters.

    A parameter that has a group as its default (``accelerator: AcceleratorOptions = ON_CPU``) takes the defaults of its
    options from there. ``context.get_parameter_source`` knows each option by the name of its field.

    Returns:
        ``function`` itself.
    """
    group.command(cls=VerbCommand)(expanded(function))
    return function


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return ``function`` with a signature in which each group of options is replaced by its options."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Any], tuple[str, ...], Any]] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind, only = _group(hints[parameter.name])
        if kind is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        found = [one for one in _options(kind, default) if not only or one.name in only]
        groups[parameter.name] = (kind, tuple(one.name for one in found), default)
        parameters += found

    @functools.wraps(function)
    def command(**values: Any) -> None:
        for name, (kind, names, default) in groups.items():
            given = {one: values.pop(one) for one in names}
            values[name] = kind(**given) if default is None else dataclasses.replace(default, **given)
        function(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del command.__wrapped__  # Typer would read the signature of the function within
    return command


def _group(hint: Any) -> tuple[type[Any] | None, tuple[str, ...]]:
    """Return the class of a group of options and the names of those that are wanted; None for any other type."""
    only: tuple[str, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *extras = typing.get_args(hint)
        only = tuple(name for extra in extras if isinstance(extra, Only) for name in extra.names)
    return (hint, only) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else (None, ())


def _options(kind: type[Any], default: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for field in dataclasses.fields(kind):
        value = getattr(default, field.name) if default is not None else field.default
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if value is dataclasses.MISSING else value,
                annotation=_in_panel(hints[field.name], getattr(kind, "PANEL", None)),
            )
        )
    return found


def _in_panel(hint: Any, panel: str | None) -> Any:
    """Return the annotation with its option under the heading ``panel``."""
    plain, option = typing.get_args(hint)
    option = copy.copy(option)
    option.rich_help_panel = option.rich_help_panel or panel
    return Annotated[plain, option]


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

    def suited(self, device: Mapping[str, Any]) -> AcceleratorOptions:
        """Return them with what the device's description says, as ``app.suited`` gives it."""
        known = {name: device[name] for name in ("accelerator", "threads") if name in device}
        return dataclasses.replace(self, **known)

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
    """Where a verb runs."""

    PANEL: ClassVar[str] = "Device"

    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="ssh://user@host[:port], adb:SERIAL, phone, browser, NAME or FILE.toml.",
        ),
    ] = "local"
    install: Annotated[
        bool, typer.Option("--install", help="Let pip install missing packages there, in a folder of its own.")
    ] = False


@dataclass(frozen=True)
class MetadataOptions:
    """What a model without metadata does not say of itself; overrides metadata that is wrong."""

    PANEL: ClassVar[str] = "Model without metadata, or with wrong metadata"

    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="The model's classes, one a line.")
    ] = None
    mean: Annotated[
        str, typer.Option("--mean", metavar="R,G,B", help="Input = (pixel - mean) / std; pixels are 0 to 255.")
    ] = ""
    std: Annotated[str, typer.Option("--std", metavar="R,G,B", help="One number stands for all three channels.")] = ""
    input_size: Annotated[
        str,
        typer.Option("--input-size", metavar="HEIGHTxWIDTH", help="Size of an input that can be resized, in pixels."),
    ] = ""
    color: Annotated[str, typer.Option("--color", metavar="rgb|bgr", help="Order of the input's channels.")] = ""

    def overrides(self) -> Overrides:
        """Return what was given, read and checked. Raises UsageError or InputError."""
        from edge_ran.card import COLORS, Overrides
        from edge_ran.model_interface import read_labels

        if self.color and self.color not in COLORS:
            raise UsageError(f"--color {self.color!r} is unknown", f"choose one of: {', '.join(COLORS)}")
        std = parse_triple("--std", self.std)
        if std is not None and min(std) <= 0:
            raise UsageError(f"--std {self.std!r} is not above 0", "for instance --std 128,128,128")
        return Overrides(
            labels=read_labels(self.labels) if self.labels else None,
            mean=parse_triple("--mean", self.mean),
            std=std,
            input_size=parse_size("--input-size", self.input_size),
            color=self.color or None,
        )


@dataclass(frozen=True)
class ManifestOptions:
    """How labelled data is read."""

    PANEL: ClassVar[str] = "Data"

    image_column: Annotated[
        str, typer.Option("--image-column", metavar="NAME", help="The CSV manifest's column of pictures, if not found.")
    ] = ""
    label_column: Annotated[
        str, typer.Option("--label-column", metavar="NAME", help="Its column of labels, if not found.")
    ] = ""
    group_column: Annotated[
        str, typer.Option("--group-column", metavar="NAME", help="Its column of groups that a split keeps together.")
    ] = ""
    split_column: Annotated[
        str, typer.Option("--split-column", metavar="NAME", help="Its column of train, val and test, if not found.")
    ] = ""
    classes: Annotated[str, typer.Option("--classes", metavar="A,B,…", help="Use these classes only.")] = ""
    clip_step: Annotated[
        float, typer.Option("--clip-step", metavar="SECONDS", help="Time between the frames taken from a clip.")
    ] = 1.0

    def reading(self) -> Reading:
        """Return them as the library takes them."""
        from edge_ran.dataset import Reading

        names = tuple(name.strip() for name in self.classes.split(",") if name.strip())
        columns = (self.image_column, self.label_column, self.group_column, self.split_column)
        return Reading(*columns, names, self.clip_step)

    def load(self, data: Path) -> Dataset:
        """Read the folder, manifest or archive ``data``. Raises InputError, or UsageError for columns of no table."""
        self.check(data)
        return self.reading().load(data)

    def check(self, data: Path) -> None:
        """Raise UsageError if a column is named although ``data`` has none."""
        named = [name for name in ("image", "label", "group", "split") if getattr(self, f"{name}_column")]
        if named and (data.is_dir() or data.suffix.lower() == ".npz"):
            option = f"--{named[0]}-column"
            raise UsageError(f"{option} has no effect: {data} is no CSV manifest", f"leave out {option}")


@dataclass(frozen=True)
class NetworkOptions:
    """The options of a network, for ``train`` and ``inspect``; they are what ``architecture.configure`` takes."""

    PANEL: ClassVar[str] = "Network"

    input_size: Annotated[
        int | None, typer.Option(help="Side of the square input in pixels.", show_default="the network's own")
    ] = None
    width: Annotated[float, typer.Option(help="Factor on the number of channels.")] = 1.0
    attention: Annotated[str, typer.Option(help="mixed, channel or spatial.")] = "mixed"
    learning: Annotated[str, typer.Option(help="residual (1+M)T or naive MT.")] = "residual"
    mask: Annotated[bool, typer.Option(help="Soft mask branches, or the trunk alone.")] = True
    upsampling: Annotated[str, typer.Option(help="bilinear or nearest.")] = "bilinear"
    mask_tail: Annotated[str | None, typer.Option(help="paper or linear.", show_default="the network's own")] = None
    shortcut: Annotated[str, typer.Option(help="identity or projection.")] = "identity"


def parse_triple(option: str, text: str) -> tuple[float, float, float] | None:
    """Read ``128`` or ``123.7,116.3,103.5``; None for an empty text. Raises UsageError."""
    if not text:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(abs(number) < float("inf") for number in numbers):
        raise UsageError(f"{option} {text!r} is not one number or three", f"for instance {option} 128,128,128")
    return numbers[0], numbers[1], numbers[2]


def parse_size(option: str, text: str) -> tuple[int, int] | None:
    """Read ``224`` or ``224x320`` as (height, width) in pixels; None for an empty text. Raises UsageError."""
    if not text:
        return None
    parts = text.lower().split("x")
    numbers = [int(part) if part.isascii() and part.isdigit() else 0 for part in parts]
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or not all(0 < number <= 8192 for number in numbers):
        raise UsageError(f"{option} {text!r} is not a size of 1 to 8192 pixels", f"for instance {option} 224x224")
    return numbers[0], numbers[1]
