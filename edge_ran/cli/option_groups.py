"""``verb``, which adds a verb to the application and lets its function take groups of options as objects.

A group of options is a frozen dataclass: each field is one option, its default the option's default. A verb takes the
group as one parameter. ``verb`` shows Typer the single options and gives the function the object. ``PANEL`` is the
group's heading in ``--help``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from edge_ran.cli.app import app
from edge_ran.cli.command import VerbCommand

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

    The verb has the name of the function, without a ``_`` at its end (``import_``).

    Returns:
        ``function`` itself.
    """
    name = function.__name__.rstrip("_").replace("_", "-")
    group.command(name, cls=VerbCommand)(expanded(function))
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
