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
        from edge_ran.cli.interrupted import interruptible  # which imports the application, and that this module

        try:
            rules.check(verb_of(ctx), given(ctx, *unset))  # --headless is no --show
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
        # A command of its own has options of its own.
        of_ours = re.sub(r"\b(edge-ran|pip|npm|tensorflowjs_converter) .*", "", part)
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


def _short(text: str) -> str:
    """Return an option's explanation without the range of its values, which the text gives where it matters."""
    text = re.sub(r"; [\d.]*<?=?x[<>=\d.]+\]", "]", " ".join(text.split()))
    return re.sub(r" \[[\d.]*<?=?x[<>=\d.]+\]", "", re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text))
