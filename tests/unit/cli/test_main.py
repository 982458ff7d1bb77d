from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType

import pytest

from tandem import __version__
from tandem.cli import main as cli
from tandem.errors import (
    ConfigError,
    InvalidInput,
    JobError,
    ModelBroken,
    Overloaded,
    TandemError,
)

Run = Callable[[argparse.Namespace], int]
Install = Callable[[Run], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a command ``try [--count N]`` into the table, which does what the test says."""

    def put(run: Run) -> None:
        module = ModuleType("tandem.cli.try_it")
        module.configure = lambda parser: parser.add_argument("--count", type=int, default=0)  # type: ignore[attr-defined]
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "try", cli.Command(module.__name__, "try it"))

    return put


def child(program: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]


def test_a_command_gets_its_own_arguments_and_gives_the_exit_code(install: Install) -> None:
    install(lambda args: int(args.count))
    assert cli.main(["try", "--count", "7"]) == 7


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        cli.main(["--version"])
    assert leave.value.code == 0
    assert capsys.readouterr().out == f"tandem {__version__}\n"


def test_no_command_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        cli.main(["sing"])
    assert leave.value.code == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("sing", *cli.COMMANDS))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (InvalidInput("x"), 2),
        (ModelBroken("x"), 3),
        (Overloaded("x"), 4),
        (JobError("x"), 5),
        (TandemError("x"), 1),
        (PermissionError(13, "Permission denied", "a/b"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_line_and_a_code(
    error: Exception, code: int, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    install(run)
    assert cli.main(["try"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"tandem: error: {error}\n"


def test_a_message_of_many_lines_becomes_one(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise ConfigError("no such key\n  port: 8o8o\n")

    install(run)
    cli.main(["try"])
    assert capsys.readouterr().err == "tandem: error: no such key port: 8o8o\n"


def test_a_bug_keeps_its_traceback(install: Install) -> None:
    def run(args: argparse.Namespace) -> int:
        raise ZeroDivisionError

    install(run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


def test_control_c_is_130(install: Install) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    install(run)
    assert cli.main(["try"]) == 130


def test_a_reader_that_leaves_is_no_error() -> None:
    program = """
        import sys, types
        from tandem.cli import main as cli
        module = types.ModuleType("endless")
        module.configure = lambda parser: None
        module.run = lambda args: [print("line") for _ in range(1_000_000)] and 0
        sys.modules["endless"] = module
        cli.COMMANDS["endless"] = cli.Command("endless", "lines")
        sys.exit(cli.main(["endless"]))
    """
    with subprocess.Popen(child(program), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_help_imports_no_command_and_no_numpy() -> None:
    program = """
        import sys
        from tandem.cli.main import COMMANDS, build_parser
        build_parser().format_help()
        heavy = {"numpy", *(command.module for command in COMMANDS.values())}
        sys.exit(", ".join(heavy & sys.modules.keys()) or 0)
    """
    done = subprocess.run(child(program), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tandem", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tandem {__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        cli.main([name, "--help"])
    assert leave.value.code == 0
    assert f"tandem {name}" in capsys.readouterr().out
