"""Every fault has a test that bears its mark, and docs/faults.md names exactly those tests."""

from faults.listed import FAULTS
from faults.table import COMMAND, PAGE, marked, stated

NUMBERS = [*range(1, 63)]


def test_the_list_of_faults_is_whole():
    assert list(FAULTS) == [f"F{number}" for number in NUMBERS]


def test_every_fault_has_a_test():
    assert sorted(set(FAULTS) - set(marked())) == []


def test_the_page_names_exactly_the_marked_tests_and_none_that_fails():
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = {fault: tests for fault, tests in marked().items() if fault in FAULTS}
    assert stated(text) == found, f"docs/faults.md is not up to date; write it with `{COMMAND}`"
    assert "FAILED" not in text and "no test" not in text
