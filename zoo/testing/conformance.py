"""Run every check of an encoder or a decoder: `check_encoder`, `check_decoder`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoo.registry.registry import Kind
from zoo.testing.copy_checks import COPY_CHECKS, compiles
from zoo.testing.decoder_checks import DECODER_CHECKS
from zoo.testing.decoder_subject import DecoderSubject
from zoo.testing.encoder_checks import ENCODER_CHECKS
from zoo.testing.encoder_subject import EncoderSubject
from zoo.testing.module_checks import MODULE_CHECKS
from zoo.testing.report import Finding, NotApplicable, Outcome, Report, describe_error, raise_if_failed
from zoo.testing.surroundings import import_library, preserve_surroundings

__all__ = ["check_decoder", "check_encoder", "checks_of", "outcome_of", "subject_of"]


def check_encoder(id: str, *, options: Mapping[str, Any] | None = None, compile: bool = False) -> Report:
    """Run every check of the contract on an encoder.

    Args:
        id: the encoder's id, as for `zoo.build`. The encoder may be registered at run time.
        options: keyword arguments for the encoder.
        compile: whether to check `torch.compile` as well, which takes some seconds.

    Returns:
        The report. `print` shows how many checks ran and which did not apply.

    Raises:
        ConformanceError: a check failed, or none ran. The message lists every failed check.
        ZooError: the id or an option is unknown, or a library that the kit needs is missing.

    Example:
        >>> print(check_encoder("resnet18"))
        23 checks ran on resnet18, all passed; 1 skipped:
          compiles: only with compile=True
    """
    return _run_checks("encoder", id, options, compile)


def check_decoder(id: str, *, options: Mapping[str, Any] | None = None, compile: bool = False) -> Report:
    """Run every check of the contract on a decoder, for synthetic pyramids of many kinds.

    The arguments, the result and the errors are those of `check_encoder`.
    """
    import_library("hypothesis")
    return _run_checks("decoder", id, options, compile)


def checks_of(kind: Kind) -> dict[str, Callable[[Any], None]]:
    """Return a mapping from names to the checks for encoders or for decoders, in the order in which the checks run."""
    own: tuple[Callable[[Any], None], ...] = ENCODER_CHECKS if kind == "encoder" else DECODER_CHECKS
    return {check.__name__: check for check in (*own, *MODULE_CHECKS, *COPY_CHECKS)}


def subject_of(kind: Kind, id: str, options: Mapping[str, Any] | None = None) -> EncoderSubject | DecoderSubject:
    """Return the encoder or decoder with this id as the subject that the checks accept."""
    return EncoderSubject(id, options) if kind == "encoder" else DecoderSubject(id, options)


def outcome_of(check: Callable[[Any], None], subject: Any) -> Outcome:
    """Run one check and return its outcome. If the code under test raises an exception, the check has failed."""
    name = check.__name__
    try:
        with preserve_surroundings():
            check(subject)
    except NotApplicable as reason:
        return Outcome(check=name, status="skipped", reason=str(reason))
    except Finding as finding:
        cause = finding.__cause__ or finding
        return Outcome(
            check=name,
            status="failed",
            expected=finding.expected,
            found=finding.found,
            remedy=finding.remedy,
            cause=cause,
        )
    except (Exception, SystemExit) as cause:  # noqa: BLE001 - a plugin's code may raise anything
        return Outcome(
            check=name,
            status="failed",
            expected=(check.__doc__ or name).strip().splitlines()[0],
            found=describe_error(cause),
            remedy="read the traceback of this exception, which the ConformanceError shows as its cause",
            cause=cause,
        )
    return Outcome(check=name, status="passed")


def _run_checks(kind: Kind, id: str, options: Mapping[str, Any] | None, compile: bool) -> Report:
    with preserve_surroundings():
        subject = subject_of(kind, id, options)
    outcomes = tuple(
        outcome_of(check, subject)
        if compile or check is not compiles
        else Outcome(check=name, status="skipped", reason="only with compile=True")
        for name, check in checks_of(kind).items()
    )
    report = Report(id=id, kind=kind, outcomes=outcomes)
    raise_if_failed(report)
    return report
