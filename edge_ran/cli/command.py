"""A verb as Typer runs it: its `--help`, and the check that its options have an effect together.

`--help` has an option a line where it fits, grouped under the headings of ``options``, in plain text.
"""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

from typer.core import TyperCommand

from edge_ran.cli import rules
from edge_ran.errors import EdgeRanError, UsageError

# What other programs call the verbs.
_OTHER_WORDS = {
    "run": (
        "predict",
        "classify",
        "infer",
        "inference",
        "detect",
        "recognize",
        "recognise",
        "camera",
        "stream",
        "label",
    ),
    "evaluate": ("test", "eval", "val", "validate", "accuracy", "score"),
    "benchmark": ("bench", "perf", "time", "speed", "latency"),
    "inspect": ("info", "show", "summary", "describe"),
    "convert": ("tflite", "export-tflite", "compile", "freeze"),
    "train": ("fit", "finetune", "retrain", "learn"),
    "dataset": ("data", "datasets", "check", "split"),
    "doctor": ("env", "checks", "diagnose", "version", "install"),
}
_WIDEST = 30  # characters of an option with its value; what is longer has its explanation on the next line


class VerbCommand(TyperCommand):
    """A verb whose options stand in groups. typer's own layout takes three lines for many options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words. Raises UsageError for an option with two values, of which the last would count."""
        for one in self.params:
            takes_one = one.param_type_name == "option" and one.nargs == 1 and not getattr(one, "multiple", False)
            names = one.opts if takes_one and not getattr(one, "is_flag", False) else []
            given = [value for name in names for value in _values(name, args)]
            if len(set(given)) > 1:
                remedy = f"give it once: {names[-1]} {shlex.quote(given[-1])}"
                raise UsageError(f"{names[-1]} is given {len(given)} times", remedy)
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Raises UsageError for options that have no effect together."""
        unset = {one.name for one in self.params if one.default is False and ctx.params.get(one.name) is False}
        rules.check(verb_of(ctx), given(ctx, *unset))  # --headless is no --show
        from edge_ran.cli.interrupted import interruptible  # which imports the application, and that this module

        try:
            with interruptible(verb_of(ctx)):
                return super().invoke(ctx)
        except EdgeRanError as error:
            known = {name for one in self.params for name in (*one.opts, *one.secondary_opts)}
            if error.remedy:
                error.remedy = fitting(error.remedy, known | {"--help"}) or f"edge-ran {verb_of(ctx)} --help"
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the verb's own options, then each group."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is None:
                continue
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if "--help" in parameter.opts and "Output" in sections:
                usual = "Output"
            heading = getattr(parameter, "rich_help_panel", None) or usual
            sections.setdefault(heading, []).append((line[0].replace(" range>", ">"), _short(line[1])))
        lines = [line for rows in sections.values() for line in rows]
        column = min(_WIDEST, max(len(name) for name, _ in lines))
        formatter.write_paragraph()
        for heading, rows in sections.items():
            if rows:
                formatter.write_heading(heading)
                formatter.indent()
                formatter.write_dl([(name.ljust(column), text) for name, text in rows], col_max=_WIDEST)
                formatter.dedent()


def fitting(remedy: str, options: set[str]) -> str:
    """Return a remedy without what names an option that the verb lacks: several verbs raise the same error."""
    kept = ""
    for part, separator in re.findall(r"(.+?)(; |, or |$)", remedy):
        of_ours = re.sub(r"\b(edge-ran|pip|npm) .*", "", part)  # a command of its own has options of its own
        if set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]*", of_ours)) <= options:
            kept += part + separator
    return re.sub(r"(; |, or )$", "", kept)


def verb_of(ctx: Any) -> str:
    """Return the verb's words without the program's: ``run``, ``dataset check``."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, str(ctx.info_name))
        ctx = ctx.parent
    return " ".join(words)


def given(context: Any, *without: str) -> dict[str, Any]:
    """Return the options that stand on the command line, by parameter and as typed, but for those in ``without``."""
    return {
        name: value
        for name, value in context.params.items()
        if name not in without and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def _values(name: str, words: list[str]) -> list[str]:
    """The values of an option on a command line."""
    words = list(itertools.takewhile(lambda word: word != "--", words))
    apart = [value for word, value in itertools.pairwise(words) if word == name]
    return apart + [word[len(name) + 1 :] for word in words if word.startswith(f"{name}=")]


def advice(context: Any, words: list[str], message: str) -> str:
    """Return what to type where Typer refused the words of a command line; empty where nothing is known.

    For values of an option with blanks between them, numbers with a decimal comma, what is read without --camera, and
    verbs as other programs call them.
    """
    if context is None or not hasattr(context.command, "params"):
        return ""
    known = {name: one for one in context.command.params for name in one.opts}
    for place, word in enumerate(words):
        values = list(itertools.takewhile(lambda value: not value.startswith("--"), words[place + 1 :]))
        if word in known and "," in (getattr(known[word], "metavar", "") or "") and len(values) > 1:
            return f"{word} {shlex.quote(','.join(value.strip(',') for value in values))}"
        name, _, value = word.partition("=") if "=" in word else (word, "", "".join(values[:1]))
        if message.startswith(f"Invalid value for '{name}'") and re.fullmatch(r"\d*,\d+", value):
            return f"with a point: {name} {value.replace(',', '.')}"
        size = re.fullmatch(r"(\d+)[xX](\d+)", value)
        if size and name == "--width" and message.startswith("Invalid value for '--width'"):
            return f"--width {size[1]} --height {size[2]}"
    extra = re.fullmatch(r"Got unexpected extra argument\(?s?\)? \((.+)\)\.?", message)
    if extra and context.info_name == "run" and "--camera" not in words and extra[1] in words:
        return f"if that is what to look at: --camera {shlex.quote(extra[1])}"
    meant = next((ours for word in words[1:2] for ours, others in _OTHER_WORDS.items() if word in others), "")
    return f"edge-ran {meant} --help" if meant else ""


def _short(text: str) -> str:
    """Return an option's explanation without the range of its values, which the text gives where it matters."""
    text = re.sub(r"; [\d.]*<?=?x[<>=\d.]+\]", "]", " ".join(text.split()))
    return re.sub(r" \[[\d.]*<?=?x[<>=\d.]+\]", "", re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text))
