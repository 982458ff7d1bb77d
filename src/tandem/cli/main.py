"""The entry point: finds the command, imports it alone, runs it, turns errors into one line and an exit code.

A command is a module and a line in ``COMMANDS``. Only the chosen one is imported: ``tandem --help`` costs no numpy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from tandem import __version__
from tandem.errors import ConfigError, JobError, ModelError, RequestError, ServiceError, TandemError


class CommandModule(Protocol):
    """What a module in ``COMMANDS`` offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit code; raises errors of the tree."""
        ...


class Command(NamedTuple):
    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "serve": Command("tandem.cli.serve", "serve a model over HTTP"),
    "embed": Command("tandem.cli.embed", "embed a text or a file of them"),
    "models": Command("tandem.cli.models", "list, pull, show and remove models"),
    "bench": Command("tandem.cli.bench", "measure this machine, with peers beside"),
    "profile": Command("tandem.cli.profile", "measure what this machine's devices cost, for simulate"),
    "simulate": Command("tandem.cli.simulate", "try the scheduler on devices that are not here"),
    "cache": Command("tandem.cli.cache", "show, clear and warm the caches of a running server"),
    "doctor": Command("tandem.cli.doctor", "show devices, what would be chosen, and why"),
}

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

# The first class that fits wins. 2 is what argparse answers to a wrong command line; 1 is Python's own for a bug.
EXIT_CODES: tuple[tuple[type[TandemError], int], ...] = (
    (ConfigError, EXIT_USAGE),
    (RequestError, EXIT_USAGE),
    (ModelError, 3),
    (ServiceError, 4),
    (JobError, 5),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tandem`` with ``argv`` (the process's own by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except TandemError as error:
        _complain(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` say, has what it wanted. Python flushes stdout at exit and would complain then.
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        # A file, port or disk of the person who typed the command: the sentence helps, a traceback does not.
        _complain(error)
        return EXIT_FAILURE


def exit_code(error: TandemError) -> int:
    """The process's answer to ``error``: 2 usage, 3 model, 4 service, 5 job, 1 anything else."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), EXIT_FAILURE)


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The command line: every command by name and help, and the arguments of ``chosen``."""
    parser = argparse.ArgumentParser(prog="tandem", description="A self-hosted text-embedding service.")
    parser.add_argument("--version", action="version", version=f"tandem {__version__}")
    subparsers = parser.add_subparsers(dest="command", title="commands", metavar="<command>")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=_sentence(command.help))
        if name == chosen:
            _load(name).configure(subparser)
    return parser


def _dispatch(arguments: list[str]) -> int:
    # No option of `tandem` itself takes a value, so the first word is the command.
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser = build_parser(chosen)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return EXIT_USAGE
    code = _load(args.command).run(args)
    # A full pipe or disk shows here, where it can be told, and not in the interpreter's last breath.
    sys.stdout.flush()
    return code


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."


def _complain(error: Exception) -> None:
    print(f"tandem: error: {' '.join(str(error).split())}", file=sys.stderr)


def _load(name: str) -> CommandModule:
    return cast(CommandModule, import_module(COMMANDS[name].module))


if __name__ == "__main__":
    sys.exit(main())
