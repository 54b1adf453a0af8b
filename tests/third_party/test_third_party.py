"""Beside other people's engines, pools, tracers and drivers, daemonkit breaks nothing."""

from __future__ import annotations

import pytest

from lab.servers import Server
from tests.third_party import page
from tests.third_party.packages import PACKAGES, Package
from tests.third_party.table import why_missing
from tests.third_party.worker import FAULTS

pytestmark = pytest.mark.one_python


@pytest.mark.leaves_sessions
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_what_works_without_daemonkit_works_with_it(
    package: Package, request: pytest.FixtureRequest
) -> None:
    if reason := why_missing(package):
        pytest.skip(reason)
    name = "mariadb" if package.server == "mariadb" else "postgres"
    server: Server = request.getfixturevalue(name)
    row = page.Row.run(package, server)
    for cells in (row.alone, row.beside):
        assert list(cells) == list(FAULTS), "a cell is empty"
        assert all(cells.values()), "a cell is empty"
    assert row.broken() == {}
    assert page.lines()[package.name] == row.line()


def test_the_page_has_a_row_for_each_package_and_a_column_for_each_fault() -> None:
    first, *rows = page.lines()
    assert rows == [package.name for package in PACKAGES]
    assert page.lines()[first] == page.head().splitlines()[0]
