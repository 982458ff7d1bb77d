from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tandem.config import SETTINGS, Settings, checked, load_settings
from tandem.errors import ConfigError
from tandem.models import catalog
from tandem.settings_page import settings_markdown


def toml(folder: Path, text: str) -> Path:
    file = folder / "tandem.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_nothing_given_is_the_defaults() -> None:
    assert load_settings(env={}) == Settings()


def test_the_default_model_is_the_catalogs() -> None:
    assert Settings().model == catalog.DEFAULT_MODEL


def test_file_then_environment_then_command_line(tmp_path: Path) -> None:
    file = toml(tmp_path, 'port = 1\nhost = "file"\nthreads = 1\n')
    env = {"TANDEM_PORT": "2", "TANDEM_HOST": "environment", "HOME": "/"}
    found = load_settings(file, {"port": "3", "host": None}, env)
    assert (found.port, found.host, found.threads) == (3, "environment", 1)


def test_types_are_those_of_the_table(tmp_path: Path) -> None:
    file = toml(tmp_path, 'served_model_name = ["a", "b"]\nwarm = false\nmax_queue_s = 5\n')
    found = load_settings(file, env={"TANDEM_DOCS": "false", "TANDEM_CORS_ORIGINS": "https://a, https://b,,"})
    assert found.served_model_name == ("a", "b")
    assert found.warm is False
    assert found.docs is False
    assert found.max_queue_s == 5.0
    assert found.cors_origins == ("https://a", "https://b")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", r"tandem\.toml: 'prot' is no setting; did you mean 'port'\?"),
        ("[server]\nport = 1", r"tandem\.toml: 'server' is no setting"),
        ('port = "eighty"', r"tandem\.toml: port: Expected `int`.*'eighty'"),
        ("port = 70000", r"tandem\.toml: port: Expected `int` <= 65535, got 70000"),
        ("port = true", "tandem.toml: port: Expected `int`"),
        ('cors_origins = "https://a"', "cors_origins: Expected `array`"),
        ('precision = "fp8"', "precision: .*fp8"),
        ('precision = "fp32\\n"', "precision: "),
        ("max_queue_s = nan", "max_queue_s: "),
        ("max_queue_s = 0", "max_queue_s: Expected `float` > 0.0"),
        ("port = = 1", r"tandem\.toml: not a TOML file"),
    ],
)
def test_a_wrong_file_names_the_key_and_the_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_settings(toml(tmp_path, text), env={})


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "gone.toml", env={})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_settings(tmp_path / "bytes.toml", env={})
    with pytest.raises(ConfigError, match="can not be read"):
        load_settings(tmp_path, env={})


def test_an_unknown_variable_of_ours_is_refused_and_of_others_not() -> None:
    with pytest.raises(ConfigError, match=r"the environment: TANDEM_THREAD is no setting; did you mean 'threads'\?"):
        load_settings(env={"TANDEM_THREAD": "2"})
    assert load_settings(env={"TANDEM_HOME": "/x", "TANDEMONIUM": "1", "PORT": "1"}) == Settings()


def test_a_wrong_override_names_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"the command line: port: .*'http'"):
        load_settings(overrides={"port": "http"}, env={})
    with pytest.raises(ConfigError, match="the command line: 'colour' is no setting"):
        load_settings(overrides={"colour": "red"}, env={})


def test_a_wrong_value_that_is_overruled_is_told_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tandem\.toml: port: .*99999"):
        load_settings(toml(tmp_path, "port = 99999"), {"port": 5}, {"TANDEM_PORT": "6"})


@pytest.mark.parametrize("text", ["", " ", " , "])
def test_keys_that_are_set_and_empty_do_not_open_the_server(text: str) -> None:
    with pytest.raises(ConfigError, match="the environment: TANDEM_API_KEYS is set and holds no key"):
        load_settings(env={"TANDEM_API_KEYS": text})


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="api_keys: one of them is empty"):
        load_settings(toml(tmp_path, 'api_keys = ["a", " "]'), env={})


def test_service_links_of_kubernetes_are_ignored() -> None:
    links = {
        "TANDEM_SERVICE_HOST": "10.0.0.1",
        "TANDEM_SERVICE_PORT": "80",
        "TANDEM_SERVICE_PORT_HTTP": "80",
        "TANDEM_PORT": "tcp://10.0.0.1:80",
        "TANDEM_PORT_80_TCP": "tcp://10.0.0.1:80",
        "TANDEM_PORT_80_TCP_PROTO": "tcp",
    }
    assert load_settings(env=links) == Settings()
    assert "enableServiceLinks: false" in settings_markdown()
    with pytest.raises(ConfigError, match="the environment: port"):
        load_settings(env={"TANDEM_PORT": "http://a"})


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999"])
@pytest.mark.parametrize("name", ["max_queue_s", "request_timeout_s"])
def test_a_number_is_finite(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"the environment: {name}: "):
        load_settings(env={f"TANDEM_{name.upper()}": text})


def test_code_may_ask_for_a_queue_without_limit() -> None:
    assert checked(Settings(max_queue_s=float("inf"))).max_queue_s == float("inf")


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"backend 'tpu'; known are: auto, openvino, onnxruntime, (torch, )?fake"):
        load_settings(env={"TANDEM_BACKEND": "tpu"})
    with pytest.raises(ConfigError, match="policy 'lucky'; known are: memory_aware, fixed"):
        checked(Settings(policy="lucky"))


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(toml(tmp_path, 'api_keys = "s3cret"'), env={})
    assert "s3cret" not in str(refused.value)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="go together"):
        load_settings(overrides={"tls_cert_file": "a.pem"}, env={})


def test_settings_made_in_code_can_be_checked() -> None:
    assert checked(Settings(api_keys=("a",))) == Settings(api_keys=("a",))
    with pytest.raises(ConfigError, match="settings: precision"):
        checked(Settings(precision="int4"))
    with pytest.raises(ConfigError, match="settings: threads"):
        checked(Settings(threads=-1))


def test_every_setting_has_a_row_a_flag_and_a_variable() -> None:
    assert [row.name for row in SETTINGS] == [field.name for field in msgspec.structs.fields(Settings)]
    page = settings_markdown()
    assert all(f"`{row.env}`" in page and row.help in page for row in SETTINGS)
    assert [row.name for row in SETTINGS if f"`{row.flag}`" not in page] == ["api_keys"]
    assert {row.kind for row in SETTINGS} <= {str, int, float, bool, tuple}


def test_the_defaults_pass_their_own_checks() -> None:
    assert checked(Settings()) == Settings()
