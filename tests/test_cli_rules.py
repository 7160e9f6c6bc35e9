"""Each pair of options of each verb, at the parsing level: both have an effect, or the pair is refused in one line."""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import pytest
import typer.main
from test_cli_help import VERBS

from edge_ran import cli
from edge_ran.cli import rules
from edge_ran.cli.command import VerbCommand
from edge_ran.errors import UsageError

ROOT = typer.Context(typer.main.get_command(cli.app), info_name="edge-ran")
VALUES = {"accelerator": "gpu", "device": "ssh://board", "smoothing": "0.5"}


def words_of(option: Any) -> list[str]:
    """The option as it is typed, with a value of its type."""
    if option.is_flag or option.secondary_opts:
        return option.secondary_opts[-1:] if option.default is True and option.secondary_opts else option.opts[-1:]
    return [option.opts[-1], *[VALUES.get(option.name, "1")] * max(1, option.nargs)]  # a number, a text and a path


def refusal(verb: str, command: Any, *words: str) -> str:
    """Parse a command line without running it; return why it is refused, or an empty text."""
    arguments = ["x" for one in command.params if one.param_type_name == "argument" and one.required]
    needed = [
        word for one in command.params if one.param_type_name == "option" and one.required for word in words_of(one)
    ]
    context = ROOT
    for name in verb.split()[:-1]:
        context = typer.Context(ROOT.command, parent=context, info_name=name)
    context = command.make_context(verb.split()[-1], [*needed, *arguments, *words], parent=context)
    command.callback = lambda **_: None
    try:
        command.invoke(context)
    except UsageError as error:
        refused = error
    else:
        return ""
    assert refused.remedy
    assert "\n" not in f"{refused}{refused.remedy}"
    return str(refused)


CHECKED = {verb: command for verb, command in VERBS.items() if isinstance(command, VerbCommand)}


@pytest.mark.parametrize("verb", CHECKED)
def test_each_pair_of_options_has_an_effect_or_is_refused(verb: str, monkeypatch):
    command = CHECKED[verb]
    monkeypatch.setattr(command, "callback", None)  # restored afterwards
    options = [one for one in command.params if one.param_type_name == "option" and not is_apart(one)]
    alone = {one.name: refusal(verb, command, *words_of(one)) for one in options}
    for one, other in itertools.combinations(options, 2):
        why = refusal(verb, command, *words_of(one), *words_of(other))
        assert bool(why) == expected(verb, {one.name, other.name}), (one.name, other.name, why)
        if why:
            assert refusal(verb, command, *words_of(other), *words_of(one)) == why  # in either order
            assert rules.spelt(one.name) in why or rules.spelt(other.name) in why
    for name, why in alone.items():
        assert bool(why) == expected(verb, {name})


def is_apart(option: Any) -> bool:
    """Whether it is for people who ask for help, or for an old spelling, which is refused whatever stands beside it."""
    return "--help" in option.opts or option.hidden


def expected(verb: str, names: set[str]) -> bool:
    """Whether the table refuses these options, written the other way round."""
    here = [rule for rule in rules.RULES if not rule.verbs or verb in rule.verbs]
    needs = any(
        isinstance(rule, rules.Needs) and rule.option in names and not names & set(rule.others) for rule in here
    )
    excluded = {frozenset((r.option, other)) for r in here if isinstance(r, rules.Excludes) for other in r.others}
    return needs or frozenset(names) in excluded


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.option)
def test_each_rule_is_about_options_that_exist(rule: Any):
    verbs = rule.verbs or tuple(VERBS)
    for verb in rule.verbs:
        assert verb in VERBS
    for name in (rule.option, *rule.others):
        assert any(name in {one.name for one in VERBS[verb].params} for verb in verbs)


@pytest.mark.parametrize(
    "words",
    [
        "run --cpu --gpu",
        "run --label hall",
        "run --keep changes",
        "run --device ssh://board --show",
        "run --install",
        "evaluate m.tflite data --gpu-precision fp32",
        "evaluate m.tflite data --accelerator cpu --no-fallback",
        "evaluate m.tflite data --delegate-option a=b",
        "train data --budget 9ms --input-size 64",
        "train data --device board --network edge50",
        "train data --budget 9ms --resume",
        "train data --budget 9ms --workers a:1,b:1 --worker 0",
    ],
)
def test_an_option_without_effect_is_two_lines_and_exit_code_2(words: str, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["edge-ran", *words.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert [line[:2] for line in err.splitlines()] == ["ed", "  "]


def test_a_budget_is_not_measured_where_tf_config_names_workers(tmp_path, monkeypatch, capsys):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    monkeypatch.setattr(sys, "argv", ["edge-ran", "train", str(tmp_path), "--budget", "9ms"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    what, remedy = capsys.readouterr().err.splitlines()
    assert "a latency budget cannot be used with the workers that TF_CONFIG names" in what
    assert "--network, --input-size and --width" in remedy


def test_a_flag_that_says_what_holds_anyway_is_no_conflict():
    assert refusal("run", CHECKED["run"], "--headless", "--device", "ssh://board") == ""


def test_what_the_documentation_and_remedies_advise_is_not_refused(monkeypatch):
    monkeypatch.setattr(CHECKED["run"], "callback", None)  # restored afterwards
    monkeypatch.setattr(CHECKED["deploy"], "callback", None)
    assert refusal("run", CHECKED["run"], "--device", "phone", "--show") == ""
    assert refusal("deploy", CHECKED["deploy"], "--all", "--install") == ""


def test_options_of_a_network_have_no_effect_on_a_file(test_models, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["edge-ran", "inspect", str(test_models / "int8.tflite"), "--width", "2"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "--width has no effect" in capsys.readouterr().err
