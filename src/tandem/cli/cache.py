"""``tandem cache stats|clear|warm|curve``: the caches of a running server, and what a near-duplicate tier would do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

from tandem.cli import cache_curve
from tandem.cli.cache_client import Patience, Server, read_key
from tandem.cli.cache_table import table
from tandem.cli.cache_warm import warm
from tandem.clock import SystemClock

_KEY_HELP = (
    "file with an API key (default: the first of $TANDEM_API_KEYS); to clear where there are several keys, one of the "
    "server's admin_key_file"
)

_WARM_HELP = (
    "Have a running server compute a file of texts, in the background class, so that they are known. Where it has "
    "several API keys, each is a tenant: texts are known to whoever asks with the same key, and to no other, unless "
    "the server's cache_tenants is shared."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="stats|clear|warm|curve")
    for name, words in (
        ("stats", "show hit rates by tier, bytes and conditions of a running server"),
        ("clear", "forget every row of its model, also in a second level that others share"),
        ("warm", "have it compute a file of texts, in the background class, so that they are known"),
    ):
        command = commands.add_parser(name, help=words, description=_WARM_HELP if name == "warm" else None)
        command.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default %(default)s)")
        command.add_argument("--key-file", type=Path, help=_KEY_HELP)
        if name == "stats":
            command.add_argument("--json", action="store_true", help="as the server tells it")
        if name == "warm":
            command.add_argument("file", type=Path, help="one text a line, or JSON lines with a field named text")
    words = "what near-duplicates could be served on your own texts, and how near they would be; needs no server"
    cache_curve.configure(commands.add_parser("curve", help=words))


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError for a server that does not answer, JobError for what it refuses."""
    if args.what == "curve":
        return cache_curve.run(args)
    key = read_key(args.key_file)
    if args.what == "warm":
        patient = Server(args.url, key, Patience(), time.sleep, partial(print, file=sys.stderr))
        return warm(patient, args.file, SystemClock())
    server = Server(args.url, key)
    if args.what == "clear":
        print(f"forgot {server.ask('POST', '/v1/cache/clear')['cleared']}")
    else:
        stats = server.ask("GET", "/v1/cache/stats")
        print(json.dumps(stats, indent=2) if args.json else "\n".join(table(stats)))
    return 0
