"""Run the checks as pytest tests: `parametrize_with_checks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import OptionError, UnknownIdError
from zoo.registry.registry import Kind, default_registry
from zoo.testing.conformance import checks_of, outcome_of, subject_of
from zoo.testing.report import Report, raise_if_failed
from zoo.testing.surroundings import import_library

if TYPE_CHECKING:
    import pytest

__all__ = ["BoundCheck", "parametrize_with_checks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCheck:
    """One check of one encoder or decoder. Calling this object runs the check.

    Attributes:
        id: the id of the encoder or decoder.
        kind: "encoder" or "decoder".
        name: the check's name.
    """

    id: str
    kind: Kind
    name: str

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ConformanceError: the check failed.
        """
        outcome = outcome_of(checks_of(self.kind)[self.name], subject_of(self.kind, self.id))
        if outcome.status == "skipped":
            import_library("pytest").skip(outcome.reason)
        raise_if_failed(Report(id=self.id, kind=self.kind, outcomes=(outcome,)))

    def __str__(self) -> str:
        return f"{self.id}-{self.name}"


def parametrize_with_checks(
    ids: Sequence[str],
    *,
    expected_failures: Mapping[str | tuple[str, str], str] | None = None,
    compile: bool = False,
) -> pytest.MarkDecorator:
    """Run every check of these encoders and decoders as a pytest test.

    Args:
        ids: the ids, as for `zoo.build`. If an id is both an encoder's and a decoder's, both are checked.
        expected_failures: a mapping from the name of a check, or from a pair (id, name), to the reason why this check is
            expected to fail. Its test is a strict xfail: if the check passes, the test fails.
        compile: whether to check `torch.compile` as well.

    Returns:
        A decorator for a test function that has one argument, `check`, and calls it.

    Raises:
        OptionError: `ids` is empty, is a string, or contains an id twice; or a key of `expected_failures` is not a check of
            these ids, or has no reason.
        UnknownIdError: neither an encoder nor a decoder has one of the ids.
        ZooError: pytest or hypothesis is not installed.

    Example:
        >>> @parametrize_with_checks(["local:mine"])
        ... def test_conformance(check):
        ...     check()
    """
    library: Any = import_library("pytest")
    import_library("hypothesis")
    if isinstance(ids, str):
        raise OptionError(f"parametrize_with_checks requires a list of ids; found the string {ids!r}. Write [{ids!r}].")
    if not ids:
        raise OptionError("parametrize_with_checks received no ids, so there is nothing to check. Name at least one id.")
    if twice := sorted({id for id in ids if list(ids).count(id) > 1}):
        raise OptionError(f"parametrize_with_checks received an id twice: {', '.join(twice)}. Name each id once.")
    checks = [check for id in ids for check in _bound(id, compile)]
    expected = _reasons(checks, expected_failures or {})
    both = {check.id for check in checks if check.kind == "encoder"} & {check.id for check in checks if check.kind == "decoder"}
    parameters = [
        library.param(
            check,
            id=f"{check.id}-{check.kind}-{check.name}" if check.id in both else str(check),
            marks=[library.mark.xfail(reason=expected[check], strict=True)] if check in expected else [],
        )
        for check in checks
    ]
    mark: pytest.MarkDecorator = library.mark.parametrize("check", parameters)
    return mark


def _bound(id: str, compile: bool) -> Iterator[BoundCheck]:
    for kind in _kinds(id):
        for name in checks_of(kind):
            if compile or name != "compiles":
                yield BoundCheck(id=id, kind=kind, name=name)


def _kinds(id: str) -> list[Kind]:
    registry = default_registry()
    default_registry().either(id)  # raises the error for an unknown id, which suggests similar ids of both kinds
    kinds: list[Kind] = []
    for kind in ("encoder", "decoder"):
        try:
            getattr(registry, kind)(id)
        except UnknownIdError:
            continue
        kinds.append(kind)
    return kinds


def _reasons(checks: Sequence[BoundCheck], given: Mapping[Any, str]) -> dict[BoundCheck, str]:
    """Return a mapping whose keys are the checks that are expected to fail, and whose values are the reasons.

    Raises:
        OptionError: a key of `given` matches none of `checks`, or its reason is empty.
    """
    found: dict[BoundCheck, str] = {}
    for key, reason in given.items():
        meant = [check for check in checks if key in (check.name, (check.id, check.name))]
        if not meant:
            names = ", ".join(dict.fromkeys(check.name for check in checks))
            raise OptionError(
                f"expected_failures names {key!r}, which is not a check of {', '.join(dict.fromkeys(c.id for c in checks))}. "
                f"Use the name of a check, or (id, name). The checks are {names}."
            )
        if not isinstance(reason, str) or not reason.strip():
            raise OptionError(
                f"expected_failures[{key!r}] must be the reason, as a string that is not empty; found {reason!r}."
            )
        found |= dict.fromkeys(meant, reason)
    return found
