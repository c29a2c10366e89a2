"""The examples in deploy/ fit the code: settings that exist, times that leave a server its grace, one uv."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opdata import server
from opdata.cli.settings_flags import defaults, environment_variable
from opdata.storage.postgres.connection import ConnectionOptions, connect_arguments

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "opdata.service").read_text()
IMAGE = (DEPLOY / "Containerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()


def seconds(text: str, pattern: str) -> list[int]:
    """The numbers that a pattern finds."""
    return [int(number) for number in re.findall(pattern, text, re.MULTILINE)]


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_an_example_names_settings_that_exist(path: Path) -> None:
    known = {environment_variable(name) for name in defaults()}

    assert set(re.findall(r"\bOPDATA_[A-Z_]+", path.read_text())) <= known


def test_nothing_is_killed_before_its_requests_are_finished() -> None:
    [unit] = seconds(UNIT, r"^TimeoutStopSec=(\d+)$")
    [*_, container] = seconds(COMPOSE, r"^    stop_grace_period: (\d+)s$")

    assert min(unit, container) >= server._GRACE_S + 15


def test_the_image_is_built_with_the_uv_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert re.findall(r"uv==([\d.]+)", IMAGE) == re.findall(
        r"^UV_VERSION := (.+)$", makefile, re.MULTILINE
    )


def test_the_image_is_made_of_files_that_exist() -> None:
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", IMAGE, re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_images_are_named_without_a_registry() -> None:
    names = re.findall(r"^FROM (\S+)|^    image: (\S+)$", f"{IMAGE}\n{COMPOSE}", re.MULTILINE)

    assert names
    assert not any("/" in "".join(name) for name in names)


def test_the_page_on_postgresql_names_every_setting_that_a_pooler_would_drop() -> None:
    page = (ROOT / "docs" / "postgresql.md").read_text()
    options = ConnectionOptions("postgresql://opdata@localhost/opdata", 10.0, 60.0)
    session = set(connect_arguments(options)["server_settings"]) - {"application_name"}

    [dropped] = re.findall(r"ignore_startup_parameters = (\S+)", page)
    assert set(dropped.split(",")) == session | {"synchronous_commit"}
    assert set(re.findall(r"ALTER ROLE opdata SET (\w+) =", page)) == session
