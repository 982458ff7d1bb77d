"""``tandem cache stats|clear|warm|curve``: the caches of a running server, and what a near-duplicate tier would do."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tandem.cli import cache_curve
from tandem.errors import ConfigError, JobError

_CHUNK = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="stats|clear|warm|curve")
    for name, words in (
        ("stats", "show hit rates by tier, bytes and conditions of a running server"),
        ("clear", "forget every row of its model, also in a second level that others share"),
        ("warm", "have it compute a file of texts, in the background class, so that they are known"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default %(default)s)")
        command.add_argument(
            "--key-file", type=Path, help="file with an API key (default: the first of $TANDEM_API_KEYS)"
        )
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
    server = _Server(args.url.rstrip("/"), _key(args.key_file))
    if args.what == "clear":
        print(f"forgot {server.ask('POST', '/v1/cache/clear')['cleared']}")
    elif args.what == "warm":
        count = known = 0
        for texts in _chunks(args.file):
            source = server.embed(texts)
            count, known = count + len(texts), known + (len(texts) if source == "l1" else 0)
        print(f"{count} texts are known now; {known} came in lists that were known before")
    else:
        stats = server.ask("GET", "/v1/cache/stats")
        print(json.dumps(stats, indent=2) if args.json else "\n".join(table(stats)))
    return 0


def table(stats: dict[str, Any]) -> list[str]:
    """The server's answer, for people."""
    rows = stats["rows"]
    if rows is None:
        return ["the caches of rows are off (cache: off)"]
    lines = ["tier                texts        tokens    of texts  of tokens   p50 us   p99 us"]
    for name, tier in rows["tiers"].items():
        times = "".join("        -" if tier[key] is None else f" {1e6 * tier[key]:8.1f}" for key in ("p50_s", "p99_s"))
        lines.append(
            f"{name:<16} {tier['texts']:>8,} {tier['tokens']:>13,} {tier['text_share']:>10.1%} "
            f"{tier['token_share']:>9.1%} {times}"
        )
    memory = rows["memory"]
    lines += [
        f"hit rate  {rows['text_hit_rate']:.1%} of texts, {rows['token_hit_rate']:.1%} of tokens",
        f"memory    {memory['entries']:,.0f} rows, {memory['bytes'] / 2**20:,.1f} of "
        f"{memory['budget_bytes'] / 2**20:,.1f} MiB, "
        f"{memory['evictions']:,.0f} made room",
        f"in flight {rows['flights']} now, {rows['joined']:,} texts joined another's",
    ]
    if rows["second_level"] is not None:
        counts = ", ".join(f"{name} {value:,.0f}" for name, value in sorted(rows["second_level"].items()) if value)
        lines.append(f"{rows['second_level_name']:<9} {rows['state']}; {counts or 'nothing yet'}")
    return lines


class _Server:
    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self._send(method, path, body)[0])

    def embed(self, texts: list[str]) -> str:
        """Where the dearest came from."""
        body = {"input": texts, "encoding_format": "base64", "priority": "background"}
        return self._send("POST", "/v1/embeddings", body)[1]

    def _send(self, method: str, path: str, body: object) -> tuple[bytes, str]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=self._headers, method=method)
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.read(), reply.headers.get("x-tandem-cache", "")
        except urllib.error.HTTPError as error:
            raise JobError(
                f"{self._url}{path} answered {error.code}: {error.read(2000).decode(errors='replace')}"
            ) from None
        except (urllib.error.URLError, ValueError) as error:
            raise ConfigError(
                f"{self._url} does not answer: {getattr(error, 'reason', error)}; name it with --url"
            ) from None


def _key(file: Path | None) -> str | None:
    if file is not None:
        from tandem.server.auth import read_keys

        return read_keys(file)[0]
    keys = [key.strip() for key in os.environ.get("TANDEM_API_KEYS", "").split(",") if key.strip()]
    return keys[0] if keys else None


def _chunks(file: Path) -> Iterator[list[str]]:
    chunk: list[str] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if text := _text(line.strip(), f"{file}, line {number}"):
                    chunk.append(text)
                if len(chunk) == _CHUNK:
                    yield chunk
                    chunk = []
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{file} can not be read: {error}") from None
    if chunk:
        yield chunk


def _text(line: str, where: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        found = json.loads(line)
    except ValueError:
        return line
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        print(f'{where}: no field "text"; left out', file=sys.stderr)
        return ""
    return str(found["text"])
