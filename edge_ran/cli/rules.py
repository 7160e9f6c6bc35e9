"""Which options need another one, and which exclude each other: an option without effect is refused, not ignored.

The one table of all verbs. Options have the names of their parameters; a rule is for every verb that has its options.
What depends on values (a folder has no label column) is checked where the value is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_ran.errors import UsageError


@dataclass(frozen=True)
class Needs:
    """``option`` has no effect without one of ``others``; ``verbs``: in these only, empty = in all."""

    option: str
    others: tuple[str, ...]
    verbs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Excludes:
    """With ``option``, none of ``others`` has an effect, or they contradict each other."""

    option: str
    others: tuple[str, ...]
    verbs: tuple[str, ...] = ()
    remedy: str = ""  # empty: to leave one of the two out


ALONE = "run train --budget in one process; give all workers the --network, --input-size and --width that it chooses"
_CHOSEN = "resume with the --network, --input-size and --width that --budget chose, in its place"
_ON_DEVICES = ("run", "benchmark", "profile", "sweep", "sustain", "verify")  # deploy has --all, too, and needs a board

RULES: tuple[Needs | Excludes, ...] = (
    # the accelerator
    Excludes("cpu", ("gpu", "accelerator", "delegate", "gpu_precision", "no_fallback")),
    Excludes("gpu", ("accelerator", "delegate")),
    Excludes("delegate", ("accelerator", "gpu_precision")),
    Needs("delegate_option", ("delegate",)),
    Needs("gpu_precision", ("gpu", "accelerator"), verbs=("evaluate",)),  # its default is the CPU
    Needs("no_fallback", ("gpu", "accelerator", "delegate"), verbs=("evaluate",)),
    # the device
    Needs("install", ("device",), verbs=_ON_DEVICES),
    # run
    Needs("label", ("record",), verbs=("run", "deploy")),
    Needs("record_limit", ("record",), verbs=("deploy",)),
    Needs("keep", ("record",), verbs=("run",)),
    # benchmark
    Needs("max_regression", ("baseline",), verbs=("benchmark",)),
    Excludes("mlperf", ("num_runs", "warmup_runs", "min_secs", "max_secs", "until"), verbs=("benchmark", "sweep")),
    # inspect
    Excludes("labels", ("json", "verbose"), verbs=("inspect",)),  # --json has them, too
    # verify
    Needs("plot", ("network",), verbs=("verify",)),
    Excludes("network", ("device", "install", "threads", "delegate", "delegate_option"), verbs=("verify",)),
    Excludes("network", ("labels", "mean", "std", "color", "input_size"), verbs=("verify",)),  # the run has its own
    # train and quantize
    Excludes("resume", ("force",), verbs=("train", "quantize")),
    Needs("worker", ("workers",), verbs=("train",)),
    Excludes("budget", ("network", "input_size", "width"), verbs=("train",)),
    Excludes("device", ("network", "input_size", "width"), verbs=("train",)),
    Excludes("resume", ("budget", "device"), verbs=("train",), remedy=_CHOSEN),
    Excludes("budget", ("workers",), verbs=("train",), remedy=ALONE),
    Excludes("device", ("workers",), verbs=("train",), remedy=ALONE),
    # import
    Needs("upsampling", ("network",), verbs=("import",)),
    # convert
    Excludes("precision", ("converter",), verbs=("convert",)),
    # devices
    Excludes("clean", ("probe", "timeout"), verbs=("devices",)),
)


def check(verb: str, typed: Mapping[str, Any]) -> None:
    """Raise UsageError if one of the options that were typed has no effect beside or without another.

    Args:
        verb: ``run``, ``dataset check``, …
        typed: the values of the options that stand on the command line, by parameter.
    """
    for rule in RULES:
        if rule.option not in typed or (rule.verbs and verb not in rule.verbs):
            continue
        there = [name for name in rule.others if name in typed]
        if isinstance(rule, Needs) and not there:
            raise UsageError(
                f"{spelt(rule.option)} has no effect without {' or '.join(map(spelt, rule.others))}",
                f"add {spelt(rule.others[0])}, or leave out {spelt(rule.option)}",
            )
        if isinstance(rule, Excludes) and there:
            raise UsageError(
                f"{spelt(rule.option)} and {spelt(there[0])} cannot be used together",
                rule.remedy or f"leave out {spelt(rule.option)} or {spelt(there[0])}",
            )
    if typed.get("accelerator") == "cpu" and (without := _first(("gpu_precision", "no_fallback"), typed)):
        raise UsageError(
            f"{spelt(without)} has no effect with --accelerator cpu", f"leave out {spelt(without)}, or use --gpu"
        )


def spelt(name: str) -> str:
    """Return a parameter's name as it is typed."""
    return f"--{name.replace('_', '-')}"


def _first(names: Iterable[str], typed: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in typed), None)
