"""The pages about "MySQL server has gone away" say what ``make gone-away`` measures."""

from __future__ import annotations

from typing import Any

import pytest

from demo.gone_away.__main__ import measure, why_missing
from demo.gone_away.page import PAGES, with_tables
from demo.gone_away.words import Language
from lab.servers import MariaDB

pytestmark = pytest.mark.one_python

LANGUAGES: list[Language] = ["en", "zh"]


@pytest.fixture(scope="module")
def results(mariadb_server: MariaDB) -> dict[str, Any]:
    if reason := why_missing():
        pytest.skip(reason)
    return measure(mariadb_server)


def test_the_tables_of_both_pages_are_what_the_command_measures(results: dict[str, Any]) -> None:
    for language in LANGUAGES:
        text = PAGES[language].read_text()
        assert with_tables(text, results, language) == text


def test_daemonkit_loses_no_unit_of_work_to_an_idle_loss_and_no_row(
    results: dict[str, Any],
) -> None:
    kept = results["faults"]["daemonkit"]
    assert kept["killed while idle"] == kept["timed out while idle"] == ["failed", 0, 3]
    assert kept["called in atomic"] == ["row kept"]
    assert kept["lost in commit"] == ["rows and an error", 1]
    assert not any(found["failed"] for found in results["settings"]["daemonkit"].values())


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table 'faults'"):
        with_tables("# A page\n", {"faults": {}, "settings": {}}, "en")
