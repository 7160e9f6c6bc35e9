"""What holds for the whole command line: help, version, unknown words, exit codes, two lines an error, no chatter."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

from edge_ran import __version__, cli, errors
from edge_ran.cli.app import at_home
from edge_ran.dataset import loading
from edge_ran.python_command import pip

_HOST = "install 'edge-ran[host]'"
ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TENSORFLOW = (
    "import sys\nfor n in ('tensorflow', 'tf_keras', 'tensorflow_model_optimization'): sys.modules[n] = None\n"
)


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(_commands(typer.main.get_command(cli.app)))


def edge_ran(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_ran", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def called(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """Run ``main`` in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["edge-ran", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


# They say on stderr what takes so long, unless -q.
TELL_PROGRESS = ("train", "quantize", "convert", "precisions", "demo")


def two_lines(text: str) -> bool:
    """What is wrong, then what to type."""
    lines = text.splitlines()
    return len(lines) == 2 and lines[0].startswith("edge-ran: ") and lines[1].startswith("  ")


def test_version():
    done = edge_ran("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"edge-ran {__version__}\n", "")


def test_the_script_is_the_module():
    script = Path(sys.executable).parent / "edge-ran"
    if not script.exists():
        pytest.skip("edge-ran is not installed in this environment")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == edge_ran("--version").stdout


def test_help_names_every_verb_and_bare_words_give_it_too():
    asked, bare = edge_ran("-h"), edge_ran()
    assert asked.returncode == 0
    assert bare.returncode == 2
    for words in COMMANDS:
        assert words[0] in asked.stdout
        assert words[0] in bare.stdout + bare.stderr


def test_the_verbs_are_those_of_the_conventions():
    known = {"train", "quantize", "convert", "evaluate", "run", "benchmark", "inspect", "verify", "devices"}
    known |= {"doctor", "dataset", "serve", "demo", "compare", "profile", "sweep", "sustain", "precisions"}
    known |= {"import", "export", "deploy", "status", "logs", "rollback", "undeploy", "fetch"}
    assert {words[0] for words in COMMANDS} == known


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_verb_and_every_option_says_what_it_does(words: tuple[str, ...]):
    command = COMMANDS[words]
    assert command.help
    for option in command.params:
        assert option.help, f"{option.name} has no help"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_option_names_are_kebab_case_and_short_ones_the_agreed(words: tuple[str, ...]):
    for option in COMMANDS[words].params:
        if option.param_type_name == "option":
            for name in (*option.opts, *option.secondary_opts):
                assert re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*", name) or name in ("-o", "-q", "-v", "-f", "-d", "-h")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_refused(words: tuple[str, ...], monkeypatch, capsys):
    assert called(monkeypatch, *words, "--no-such-option") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert two_lines(err)
    assert "--no-such-option" in err
    assert f"{' '.join(words)} --help" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("trian",), "Did you mean 'train'?"),
        (("inspect",), "Missing argument"),
        (("dataset", "x", "--jsno"), "--json"),
        (("run", "--max-frames", "many"), "--max-frames"),
        (("inspect", "edge05"), "edge50"),
        (("evaluate", "m.tflite", "x", "--max-drop", "nan"), "--max-drop"),  # a gate that nothing would fail
        (("precisions", "x", "x", "--max-drop", "-1"), "--max-drop"),
    ],
)
def test_words_that_are_off_are_two_lines_and_exit_code_2(words: tuple[str, ...], expected: str, monkeypatch, capsys):
    assert called(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert two_lines(err)
    assert expected in err


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.GateError, 1),
        (errors.UsageError, 2),
        (errors.InputError, 2),
        (errors.OutputExists, 2),
        (errors.EnvironmentMissing, 3),
        (errors.CameraError, 3),
        (errors.AcceleratorError, 3),
    ],
)
def test_every_error_is_two_lines_and_its_exit_code(kind: type[errors.EdgeRanError], code: int, monkeypatch, capsys):
    def fail(**_: object) -> None:
        raise kind("what is wrong", "what to type")

    monkeypatch.setattr(cli, "app", fail)
    assert called(monkeypatch) == code
    assert capsys.readouterr() == ("", "edge-ran: what is wrong\n  what to type\n")
    assert called(monkeypatch, "-v") == code
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["edge-ran"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_the_home_folder_is_found_where_the_shell_left_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/x")
    words = ["run", "~/m.tflite", "--labels=~/l.txt", "--camera", "a~/b", "--x=a ~/b", "~"]
    made = ["run", "/home/x/m.tflite", "--labels=/home/x/l.txt", *words[3:]]
    assert at_home(words) == made


@pytest.mark.parametrize("words", [("train", "x"), ("convert", "--fp32"), ("quantize", "x"), ("demo",)], ids=" ".join)
def test_host_verbs_without_tensorflow_say_what_to_install(words: tuple[str, ...], tmp_path: Path):
    code = f"{WITHOUT_TENSORFLOW}from edge_ran import cli\nsys.argv[1:] = {list(words)!r}\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    what, remedy = done.stderr.splitlines()[-2:]
    assert what.startswith(f"edge-ran: {words[0]} needs t")
    assert remedy == f"  {pip(_HOST)}"
    assert list(tmp_path.iterdir()) == []


def test_a_verb_of_the_device_needs_no_tensorflow(test_models: Path):
    model = str(test_models / "int8.tflite")
    code = f"{WITHOUT_TENSORFLOW}from edge_ran import cli\nsys.argv[1:] = ['inspect', {model!r}, '--json']\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"operators"' in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "benchmark MODEL --cpu", "sustain MODEL --duration 1s", "sweep MODEL", "run MODEL --camera DATA/red",
        "evaluate MODEL DATA", "verify MODEL", "export MODEL --web SITE", "serve MODEL", "quantize MODEL",
        "precisions MODEL DATA", "convert MODEL", "train MODEL", "deploy MODEL --device ssh://nobody@127.0.0.1:1",
        "import MODEL", "demo MODEL -o SITE",
    ],
)  # fmt: skip
def test_a_model_with_two_inputs_is_two_lines_and_exit_code_2(
    words, test_models, pictures, tmp_path, monkeypatch, capsys
):
    """`inspect` and `profile` work with it; nothing that feeds pictures does."""
    if words.split()[0] in ("quantize", "precisions", "convert", "train", "import", "demo"):
        pytest.importorskip("tf_keras", reason="needs edge-ran[host]")
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": test_models / "two_inputs.tflite", "DATA": pictures, "SITE": tmp_path / "site"}
    for name, path in names.items():
        words = words.replace(name, str(path))
    assert called(monkeypatch, *words.split(), *(["-q"] if words.split()[0] in TELL_PROGRESS else [])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert two_lines(err)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("verb", ["inspect", "profile"])
def test_a_model_with_two_inputs_can_be_looked_at(verb: str, test_models: Path, monkeypatch, capsys):
    assert called(monkeypatch, verb, test_models / "two_inputs.tflite") == 0
    assert "ADD" in capsys.readouterr().out


def test_no_colours_where_nobody_looks(test_models: Path):
    done = edge_ran("inspect", test_models / "int8.tflite")
    assert done.returncode == 0
    assert "\x1b[" not in done.stdout + done.stderr


def test_a_reader_that_had_enough_is_no_error(test_models: Path):
    words = [sys.executable, "-m", "edge_ran", "inspect", str(test_models / "int8.tflite"), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_ends_with_130_and_no_traceback(test_models: Path):
    code = (
        "import sys, time\n"
        "from edge_ran import bench, cli\n"
        "def begin(*_, **__): print('begun', file=sys.stderr, flush=True); time.sleep(60)\n"
        "bench.benchmark = begin\n"
        f"sys.argv = ['edge-ran', 'benchmark', {str(test_models / 'int8.tflite')!r}]\n"
        "cli.main()"
    )
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A CI may run its jobs with SIGINT ignored, which children inherit.
    with subprocess.Popen(
        [sys.executable, "-c", code], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipe
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_while_packages_are_imported_is_quiet(tmp_path: Path):
    (tmp_path / "typer.py").write_text(
        "import sys, time\nprint('begun', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        [sys.executable, "-m", "edge_ran", "devices"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
@pytest.mark.parametrize("words", [["convert", "--int8"], ["benchmark"]])
def test_a_current_folder_that_was_deleted_is_said(words, tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert called(monkeypatch, *words) == 3
    err = capsys.readouterr().err.splitlines()
    assert err == ["edge-ran: the folder that this shell is in was deleted", "  cd to one that exists"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
def test_a_file_system_that_refuses_is_two_lines(number: int, monkeypatch, capsys):
    def refuse(*words: object, **others: object) -> None:
        raise OSError(number, os.strerror(number), "/share/photos")

    monkeypatch.setattr(loading, "from_folder", refuse)
    monkeypatch.setattr(loading, "from_names", refuse)
    assert called(monkeypatch, "dataset", str(ROOT)) == errors.EnvironmentMissing.exit_code
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == f"edge-ran: cannot get at /share/photos: {os.strerror(number)}"
    assert len(said) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_two_lines(test_models: Path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "edge_ran", "inspect", str(test_models / "int8.tflite")]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 3
    assert two_lines(done.stderr)


def test_a_broken_package_is_two_lines(tmp_path: Path):
    (tmp_path / "numpy.py").write_text("raise ImportError('\\n\\nIMPORTANT: PLEASE READ THIS FOR ADVICE')\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = edge_ran("inspect", ROOT / "edge_ran" / "shipped" / "edge50" / "int8.tflite", PYTHONPATH=path)
    assert done.returncode == errors.EnvironmentMissing.exit_code
    assert done.stdout == ""
    what = "edge-ran: numpy cannot be imported: IMPORTANT: PLEASE READ THIS FOR ADVICE"
    assert done.stderr.splitlines()[-2:] == [what, "  edge-ran doctor"]
    assert "Traceback" not in done.stderr


def test_the_labels_of_a_file_alone(labelled_model, test_models: Path, monkeypatch, capsys):
    assert called(monkeypatch, "inspect", str(labelled_model("int8")), "--labels") == 0
    assert capsys.readouterr().out == "red\ngreen\nblue\n"
    assert called(monkeypatch, "inspect", "edge50", "--labels") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["airplane", "automobile"]
    for name in (test_models / "int8.tflite", "no-such-network"):
        assert called(monkeypatch, "inspect", str(name), "--labels") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert two_lines(err)


LETTERS = ("Große Halle", "Главный зал", "大厅")


@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
def test_a_terminal_that_knows_ascii_only_gets_replacements(
    errors: str, labelled_model, test_models: Path, tmp_path: Path, monkeypatch
):
    """As PYTHONIOENCODING=ascii makes it."""
    from edge_ran.card import InputSpec, ModelCard
    from edge_ran.graph import attach_card

    model = tmp_path / "Modell-ü.tflite"
    card = ModelCard("Farben", LETTERS, InputSpec(16, 16))
    model.write_bytes(attach_card((test_models / "int8.tflite").read_bytes(), card))
    for label in LETTERS:
        (tmp_path / "Bilder" / label).mkdir(parents=True)
        for number in range(2):
            data = cv2.imencode(".png", np.full((20, 20, 3), 90 * number, np.uint8))[1]
            (tmp_path / "Bilder" / label / f"ä{number}.png").write_bytes(data.tobytes())
    monkeypatch.chdir(tmp_path)
    lines = {
        f"inspect {model}": 0,
        f"inspect {model} --labels": 0,
        f"evaluate {model} Bilder": 0,
        f"evaluate {model} Bilder --json": 0,
        f"run {model} --camera Bilder/{LETTERS[2]} --headless": 0,
        "dataset Bilder": 0,
        "dataset nirgends-ö": 2,
        **dict.fromkeys((f"{' '.join(words)} --help" for words in COMMANDS), 0),
    }
    for line, code in lines.items():
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=how) for how in (errors, "backslashreplace")]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "__stdout__", streams[0])
        assert called(monkeypatch, *line.split()) == code, line
        for stream in streams:
            stream.flush()
        out = streams[0].buffer.getvalue()
        assert out.isascii() or "--help" in line  # whose text typer writes as UTF-8
        if line.endswith("--labels"):
            assert out == "".join(f"{label}\n" for label in LETTERS).encode("ascii", "backslashreplace")


def test_a_model_whose_name_no_runtime_can_read_is_one_line(test_models: Path, tmp_path: Path, monkeypatch, capsys):
    model = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m-\xfc.tflite"))
    model.write_bytes((test_models / "int8.tflite").read_bytes())
    for verb in ("inspect", "benchmark", "run", "verify"):
        assert called(monkeypatch, verb, str(model)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert two_lines(err)
        assert "is not UTF-8" in err
