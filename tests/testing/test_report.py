"""What a report says, and when it is an error."""

from __future__ import annotations

import pytest

from zoo.testing import ConformanceError, Outcome, Report
from zoo.testing.report import raise_if_failed

PASSED = Outcome(check="one", status="passed")
SKIPPED = Outcome(check="two", status="skipped", reason="it has none")
FAILED = Outcome(check="three", status="failed", expected="a", found="b", remedy="c", cause=ValueError("why"))


def report(*outcomes):
    return Report(id="local:mine", kind="decoder", outcomes=outcomes)


def test_a_report_says_how_many_checks_ran():
    assert str(report(PASSED, PASSED)) == "2 checks ran on local:mine, all passed"
    assert str(report(PASSED)) == "1 check ran on local:mine, all passed"
    assert str(report(PASSED, FAILED)) == "2 checks ran on local:mine, 1 failed"


def test_what_was_skipped_is_told_with_its_reason_and_does_not_count():
    text = str(report(PASSED, SKIPPED))
    assert text == "1 check ran on local:mine, all passed; 1 skipped:\n  two: it has none"


@pytest.mark.parametrize("outcomes", [(), (SKIPPED,)])
def test_a_run_in_which_no_check_ran_is_a_failure(outcomes):
    with pytest.raises(ConformanceError, match="no check ran, so nothing was tested"):
        raise_if_failed(report(*outcomes))


def test_an_error_keeps_its_causes():
    with pytest.raises(ConformanceError, match="expected: a") as caught:
        raise_if_failed(report(PASSED, FAILED))
    assert caught.value.__cause__ is FAILED.cause
    with pytest.raises(ConformanceError) as caught:
        raise_if_failed(report(FAILED, FAILED))
    assert caught.value.__cause__.exceptions == (FAILED.cause, FAILED.cause)
