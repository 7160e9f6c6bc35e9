"""`--help` of a verb: an option a line where it fits, grouped under the headings of ``options``, in plain text."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

_WIDEST = 30  # characters of an option with its value; what is longer has its explanation on the next line


class VerbCommand(TyperCommand):
    """A verb whose options stand in groups. typer's own layout takes three lines for many options."""

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


def _short(text: str) -> str:
    """Return an option's explanation without the range of its values, which the text gives where it matters."""
    text = re.sub(r"; [\d.]*<?=?x[<>=\d.]+\]", "]", " ".join(text.split()))
    return re.sub(r" \[[\d.]*<?=?x[<>=\d.]+\]", "", re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text))
