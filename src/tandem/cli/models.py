"""``tandem models list | pull | show | rm``: the models on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from tandem.clock import SystemClock
from tandem.config import load_settings, source_options
from tandem.errors import ModelNotFound
from tandem.models.catalog import CATALOG, DEFAULT_MODEL, names_of
from tandem.models.folder import ModelFolder
from tandem.models.inventory import Architecture, ListedModel, ShownModel, list_models, show_model
from tandem.models.progress import Silent, StreamProgress, readable
from tandem.models.resolve import SourceOptions, Sources
from tandem.models.sources import read_name

EXIT_DIFFERS = 3  # as for any other model that is not what it should be

_EPILOG = "short names: " + ", ".join(sorted(names_of(entry)[-1] for entry in CATALOG))
_NAME_HELP = "a short name, a Hugging Face id or a folder"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the four actions; options that all of them take stand after the action."""
    actions = parser.add_subparsers(dest="action", metavar="<action>", required=True)
    common = _common_options()

    listing = actions.add_parser("list", parents=[common], help="models on this machine")
    listing.add_argument("--json", action="store_true", help="one JSON list instead of a table")

    pull = actions.add_parser("pull", parents=[common], help="fetch a model, or its newer revision", epilog=_EPILOG)
    pull.add_argument(
        "name", nargs="?", default=DEFAULT_MODEL, help=f"a short name or Hugging Face id ({DEFAULT_MODEL})"
    )
    pull.add_argument("--quiet", action="store_true", help="no progress")

    show = actions.add_parser("show", parents=[common], help="files, architecture and place of a model")
    show.add_argument("name", nargs="?", default=DEFAULT_MODEL, help=f"{_NAME_HELP} ({DEFAULT_MODEL})")
    show.add_argument("--verify", action="store_true", help="hash every file and compare with what was recorded")
    show.add_argument("--json", action="store_true", help="one JSON object instead of text")

    remove = actions.add_parser("rm", parents=[common], help="remove a model from Tandem's own store")
    remove.add_argument("name", help="a short name or Hugging Face id")


def run(args: argparse.Namespace) -> int:
    """Do the action; raises ModelError for a model that is not there, damaged or can not be had."""
    sources = Sources(_options(args))
    if args.action == "list":
        return _list(sources, as_json=args.json)
    if args.action == "pull":
        return _pull(sources, args.name, quiet=args.quiet)
    if args.action == "show":
        return _show(sources, args.name, verify=args.verify, as_json=args.json)
    return _remove(sources, args.name)


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", "--store-dir", metavar="DIR", help="Tandem's own store ($TANDEM_HOME/models)")
    # Off or not given: what the environment says holds otherwise, as for `tandem serve`.
    common.add_argument(
        "--no-hub", "--no-use-hub", action="store_true", help="leave out the Hugging Face hub and its cache"
    )
    common.add_argument(
        "--no-package-index", "--no-use-package-index", action="store_true", help="leave out the package index"
    )
    common.add_argument(
        "--hub-timeout", type=_seconds, metavar="SECONDS", help="how long the hub may take to answer (5)"
    )
    return common


def _options(args: argparse.Namespace) -> SourceOptions:
    overrides = {
        "store_dir": args.store,
        "use_hub": False if args.no_hub else None,
        "use_package_index": False if args.no_package_index else None,
    }
    options = source_options(load_settings(overrides=overrides))
    if args.hub_timeout is not None:
        options = msgspec.structs.replace(options, hub_timeout_s=args.hub_timeout)
    return options


def _list(sources: Sources, *, as_json: bool) -> int:
    models = list_models(sources)
    if as_json:
        _print_json(models)
    elif not models:
        print(f"no models yet; `tandem models pull` fetches {DEFAULT_MODEL}")
    else:
        header = ("NAME", "SOURCE", "SIZE", "FINGERPRINT", "ADDED")
        print(_table([header, *map(_row, models)]))
    for model in models:
        if model.problem is not None:
            print(model.problem, file=sys.stderr)
    return 0


def _pull(sources: Sources, name: str, *, quiet: bool) -> int:

    folder = sources.pull(name, Silent() if quiet else StreamProgress(sys.stderr, SystemClock()))
    print(f"{folder.name} is ready in {folder.path}")
    return 0


def _show(sources: Sources, name: str, *, verify: bool, as_json: bool) -> int:
    shown = show_model(name, sources, verify=verify)
    if as_json:
        _print_json(shown)
    else:
        print(_described(shown))
    for difference in shown.differences:
        print(f"differs: {difference}", file=sys.stderr)
    return EXIT_DIFFERS if shown.differences else 0


def _remove(sources: Sources, name: str) -> int:
    wanted = read_name(name)
    if wanted.hub_id is None:
        raise ModelNotFound(
            f"{name!r} is no hub id and no short name; only models of the store {sources.store.root} are removed"
        )
    if not sources.store.path_of(wanted.hub_id).is_dir() and isinstance(
        sources.find_cached(wanted.hub_id), ModelFolder
    ):
        raise ModelNotFound(
            f"{wanted.hub_id} is not in Tandem's own store but in the Hugging Face cache, which is not Tandem's alone; "
            f"`hf cache rm model/{wanted.hub_id}` removes it there"
        )
    freed_bytes = sources.store.remove(wanted.hub_id)
    print(f"removed {wanted.hub_id} from {sources.store.root}: {readable(freed_bytes)}")
    return 0


def _described(shown: ShownModel) -> str:
    model = shown.model
    facts = [
        ("name", model.name),
        ("source", f"{model.source} ({model.origin})" if model.origin else model.source),
        ("path", model.path),
        ("added", _date(model.added_s)),
        ("size", readable(model.size_bytes)),
        ("fingerprint", model.fingerprint or "-"),
        *_architecture_facts(shown.architecture),
    ]
    if shown.verified is not None:
        facts.append(("verified", f"{shown.verified}, {len(shown.files)} files hashed"))
    files = [("FILE", "BYTES", "DIGEST"), *((f.path, str(f.size_bytes), f.digest or "-") for f in shown.files)]
    return f"{_table(facts)}\n\n{_table(files)}"


def _architecture_facts(architecture: Architecture) -> list[tuple[str, str]]:
    facts = [("architecture", architecture.model_type or "not stated")]
    if architecture.unsupported is not None:
        return [*facts, ("unsupported", architecture.unsupported)]
    prompts = {name: text for name, text in architecture.prompts.items() if text}
    return [
        *facts,
        ("layers", f"{architecture.layers} of width {architecture.hidden}"),
        ("dimensions", str(architecture.dims)),
        ("max length", f"{architecture.max_tokens} tokens"),
        ("pooling", f"{architecture.pooling}{', normalised' if architecture.normalize else ''}"),
        ("prompts", ", ".join(f"{name}: {text!r}" for name, text in prompts.items()) or "none"),
    ]


def _row(model: ListedModel) -> tuple[str, ...]:
    if model.problem is not None:
        return (model.name, model.source, "-", "unusable", "-")
    return (model.name, model.source, readable(model.size_bytes), model.fingerprint or "-", _date(model.added_s))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "-"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _print_json(value: Iterable[ListedModel] | ShownModel) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600 seconds")
    return value
