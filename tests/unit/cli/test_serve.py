"""``tandem serve``: flags for every setting, and settings as the server takes them."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import pytest

from tandem.cli.serve import configure, server_options
from tandem.config import SETTINGS, Settings, choices, load_settings
from tandem.errors import ConfigError
from tandem.server.options import ServerOptions
from tandem.settings_page import settings_markdown


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(words)


def test_every_setting_has_a_flag_and_none_is_given_unasked() -> None:
    given = vars(parse())
    # A key on a command line could be read by everybody on the machine.
    assert {row.name for row in SETTINGS} - {"api_keys"} | {"config"} == set(given)
    assert set(given.values()) == {None}


def test_the_pages_flags_are_those_of_the_parser() -> None:
    parser = argparse.ArgumentParser()
    configure(parser)
    usage = parser.format_usage()
    rows = [line.split(" | ") for line in settings_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(SETTINGS)
    for key, flag, *_ in rows:
        assert flag == "none" or f"[{flag.strip('`')}" in usage, key
    assert rows[0][:2] == ["| `model`", "`MODEL`"]


@pytest.mark.parametrize("flag", ["--backend", "--policy", "--precision"])
def test_names_are_choices(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(flag, "nonesuch")
    told = capsys.readouterr().err
    assert all(name in told for name in choices(flag.removeprefix("--")))


def test_flags_become_settings() -> None:
    words = "mini --port 9 --no-docs --access-log --cors-origins a --cors-origins b --drain-timeout-s 2.5"
    args = parse(*words.split())
    settings = load_settings(overrides={row.name: getattr(args, row.name) for row in SETTINGS if row.flag}, env={})
    assert (settings.model, settings.port, settings.docs, settings.access_log) == ("mini", 9, False, True)
    assert (settings.cors_origins, settings.drain_timeout_s) == (("a", "b"), 2.5)


def test_options_carry_the_settings_of_the_same_name() -> None:
    changed = Settings(max_body_bytes=5, max_batch_items=7, docs=False, served_model_name=("a",), api_keys=("k",))
    options = server_options(changed, 512)
    renamed = {"served_model_names", "max_batch_tokens", "request_timeout_s", "tls_cert_file", "tls_key_file"}
    renamed |= {"admin_keys"}
    for field in msgspec.structs.fields(ServerOptions):
        if field.name not in renamed:
            assert getattr(options, field.name) == getattr(changed, field.name), field.name
    assert (options.served_model_names, options.max_batch_tokens) == (("a",), 512)
    assert (options.request_timeout_s, options.tls_cert_file) == (None, None)


def test_keys_of_the_file_join_those_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("two\nthree\n", "utf-8")
    options = server_options(Settings(api_keys=("one",), api_key_file=str(tmp_path / "keys")), 512)
    assert options.api_keys == ("one", "two", "three")
    with pytest.raises(ConfigError, match="can not be read"):
        server_options(Settings(api_key_file=str(tmp_path / "none")), 512)


def test_an_admins_key_opens_the_door_and_closes_none(tmp_path: Path) -> None:
    (tmp_path / "admins").write_text("root\n", "utf-8")
    options = server_options(Settings(api_keys=("one",), admin_key_file=str(tmp_path / "admins")), 512)
    assert (options.api_keys, options.admin_keys) == (("one", "root"), ("root",))
    opened = server_options(Settings(admin_key_file=str(tmp_path / "admins")), 512)
    assert (opened.api_keys, opened.admin_keys) == ((), ("root",))
