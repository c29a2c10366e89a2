"""How hard Hypothesis tries: the same examples every time, unless asked to explore.

`pytest --hypothesis-profile=explore tests/property` looks for new ones, and for longer.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.property.pipeline import Pipeline

settings.register_profile(
    "repeat", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("repeat")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, module_db: str) -> Iterator[Pipeline]:
    """The way of an item into a store and out again, shared by a module's examples."""
    embedded = f"sqlite:///{tmp_path_factory.mktemp('pipeline') / 'opdata.db'}"
    with Pipeline(module_db or embedded) as running:
        yield running
