"""Settings: who wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from opdata.config import Settings, load_settings, parse_quota
from opdata.errors import ConfigError
from opdata.model import RATE_CATEGORIES, Quota


def load(folder: Path, **environ: str) -> Settings:
    return load_settings(None, environ, folder)


def test_without_anything_given_the_defaults_hold(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings()


def test_flags_win_over_the_environment_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "opdata.toml").write_text('host = "file"\nport = 1\nworkers = 2\n')
    settings = load_settings(
        {"host": "flag", "port": None},
        {"OPDATA_HOST": "environment", "OPDATA_PORT": "3"},
        tmp_path,
    )
    assert (settings.host, settings.port, settings.workers) == ("flag", 3, 2)
    assert settings.data_dir == Settings().data_dir


def test_the_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("port = 99\n")
    (tmp_path / "opdata.toml").write_text("port = 11\n")
    assert load(tmp_path, OPDATA_CONFIG=str(tmp_path / "other.toml")).port == 99
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path, OPDATA_CONFIG=str(tmp_path / "none.toml"))


def test_every_setting_can_come_from_the_environment(tmp_path: Path) -> None:
    defaults = Settings()
    for name in Settings.__struct_fields__:
        text = str(getattr(defaults, name))
        assert getattr(load(tmp_path, **{f"OPDATA_{name.upper()}": text}), name) == getattr(
            defaults, name
        )


@pytest.mark.parametrize(
    "environ",
    [
        {"OPDATA_PORT": "http"},
        {"OPDATA_PORT": "65536"},
        {"OPDATA_PORT": "-1"},
        {"OPDATA_WORKERS": "0"},
        {"OPDATA_WORKERS": "65"},
        {"OPDATA_MAX_BODY_BYTES": "1"},
        {"OPDATA_AUTH_CACHE_S": "5.1"},
        {"OPDATA_AUTH_CACHE_S": "nan"},
        {"OPDATA_AUTH_CACHE_S": "-1"},
        {"OPDATA_BUSY_TIMEOUT_S": "0"},
        {"OPDATA_BUSY_TIMEOUT_S": "inf"},
        {"OPDATA_LIMIT_READ": "many"},
        {"OPDATA_LIMIT_READ": "0/60s"},
        {"OPDATA_LIMIT_READ": "10/0s"},
        {"OPDATA_LIMIT_READ": "-1/60s"},
        {"OPDATA_LOG_LEVEL": "loud"},
        {"OPDATA_LOG_FORMAT": "xml"},
    ],
    ids=lambda environ: "=".join(*environ.items()),
)
def test_a_value_out_of_bounds_is_refused_by_its_name(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    [(variable, _)] = environ.items()
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, **environ)
    said = raised.value.message.lower()
    name = variable.removeprefix("OPDATA_").lower()
    assert name in said or "quota" in said


@pytest.mark.parametrize("text", ["port = \n", "prot = 8080\n", 'port = "a"\n', "\udcff"])
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "opdata.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "quota"),
    [("1200/60s", Quota(1200, 60)), ("1/1", Quota(1, 1)), (" 5/86400s ", Quota(5, 86_400))],
)
def test_a_quota_reads_requests_and_seconds(text: str, quota: Quota) -> None:
    assert parse_quota(text) == quota


@pytest.mark.parametrize(
    "text", ["", "1200", "/60s", "10/60m", "1.5/60s", "1e3/60s", "1/-60s", "٣/60"]
)
def test_anything_else_is_no_quota(text: str) -> None:
    with pytest.raises(ConfigError, match="1200/60s"):
        parse_quota(text)


def test_every_rate_category_has_its_own_quota() -> None:
    settings = Settings(
        limit_batch="1/1s", limit_write="2/1s", limit_read="3/1s", limit_admin="4/1s"
    )
    assert list(settings.quotas) == list(RATE_CATEGORIES)
    assert [quota.requests for quota in settings.quotas.values()] == [1, 2, 3, 4]


def test_the_database_lies_in_the_data_directory_unless_one_is_named() -> None:
    assert Settings(data_dir="/x").database_url == "sqlite:////x/opdata.db"
    assert Settings(data_dir="/x", db="sqlite:///y.db").database_url == "sqlite:///y.db"


def test_a_key_is_trusted_for_five_seconds_at_most() -> None:
    """W3: a revoked key stops working within 5 s."""
    assert Settings().auth_cache_s <= 5
