"""The outcomes of the checks of one encoder or decoder, their report, and the error that lists the failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import ZooError
from zoo.registry.registry import Kind

__all__ = ["ConformanceError", "Finding", "NotApplicable", "Outcome", "Report", "describe_error", "raise_if_failed"]


class Finding(Exception):  # noqa: N818 - a check's verdict; the error that a caller sees is ConformanceError
    """Raised by a check that fails. States what was expected, what was found, and what to do."""

    def __init__(self, *, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected {expected}; found {found}")
        self.expected = expected
        self.found = found
        self.remedy = remedy


class NotApplicable(Exception):  # noqa: N818 - not an error: the check does not apply
    """Raised by a check that does not apply. The message states the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one check.

    Attributes:
        check: the check's name.
        status: "passed", "failed", or "skipped" for a check that does not apply.
        reason: why the check was skipped.
        expected: what the contract requires, if the check failed.
        found: the actual result, if the check failed.
        remedy: how to correct the fault, if the check failed.
        cause: the exception that made the check fail.
    """

    check: str
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""
    expected: str = ""
    found: str = ""
    remedy: str = ""
    cause: BaseException | None = None

    def __str__(self) -> str:
        if self.status != "failed":
            return f"{self.check}: {self.status}" + (f" ({self.reason})" if self.reason else "")
        return f"{self.check}\n  expected: {self.expected}\n  found: {self.found}\n  what to do: {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcomes of all checks of one encoder or decoder. `str()` returns a summary.

    Attributes:
        id: the id of the encoder or decoder.
        kind: "encoder" or "decoder".
        outcomes: one outcome for each check, in the order in which the checks ran.
    """

    id: str
    kind: Kind
    outcomes: tuple[Outcome, ...]

    @property
    def ran(self) -> tuple[str, ...]:
        """The names of the checks that ran."""
        return tuple(outcome.check for outcome in self.outcomes if outcome.status != "skipped")

    @property
    def skipped(self) -> tuple[Outcome, ...]:
        """The outcomes of the checks that did not apply. Their attribute `reason` says why."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "skipped")

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes of the checks that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def __str__(self) -> str:
        count = len(self.ran)
        verdict = f"{len(self.failed)} failed" if self.failed else "all passed" if count else "which proves nothing"
        lines = [f"{count} check{'' if count == 1 else 's'} ran on {self.id}, {verdict}"]
        if self.skipped:
            lines[0] += f"; {len(self.skipped)} skipped:"
            lines += [f"  {outcome.check}: {outcome.reason}" for outcome in self.skipped]
        return "\n".join(lines)


class ConformanceError(ZooError, AssertionError):
    """An encoder or decoder breaks its contract, or no check ran. The message lists every check that failed.

    Attributes:
        report: the outcomes of all checks.
        failures: the outcomes of the checks that failed, each with its cause.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report
        self.failures = report.failed

    def __str__(self) -> str:
        report = self.report
        name = f"The {report.kind} {report.id}"
        if not report.ran:
            skipped = "".join(f"\n  {outcome}" for outcome in report.skipped)
            return f"{name}: no check ran, so nothing was tested. Choose checks that apply.{skipped}"
        lines = [f"{name} fails {len(self.failures)} of {len(report.ran)} checks."]
        lines += [f"- {outcome}".replace("\n", "\n  ") for outcome in self.failures]
        return "\n".join(lines)


def describe_error(error: BaseException) -> str:
    """Return an exception's class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def raise_if_failed(report: Report) -> None:
    """Raise a `ConformanceError` if a check failed or none ran.

    The cause of the error is the exception of the failed check, or a group of the exceptions if several checks failed.
    """
    if report.ran and not report.failed:
        return
    causes = [outcome.cause for outcome in report.failed if outcome.cause is not None]
    cause = causes[0] if len(causes) == 1 else BaseExceptionGroup("the checks' exceptions", causes) if causes else None
    raise ConformanceError(report) from cause
