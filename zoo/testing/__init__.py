"""The conformance kit for plugin authors: checks for every clause of the contracts of encoders and decoders.

    from zoo.testing import check_decoder, parametrize_with_checks

    print(check_decoder("local:mine"))          # all checks, one report

    @parametrize_with_checks(["local:mine"])    # or one pytest test for each check
    def test_conformance(check):
        check()

Requires `pip install "segmentation-zoo[testing]"` (hypothesis; pytest for the decorator).
"""

from __future__ import annotations

from zoo.testing.conformance import check_decoder, check_encoder
from zoo.testing.parametrize import parametrize_with_checks
from zoo.testing.report import ConformanceError, Outcome, Report
from zoo.testing.synthetic import pyramids

__all__ = [
    "ConformanceError",
    "Outcome",
    "Report",
    "check_decoder",
    "check_encoder",
    "parametrize_with_checks",
    "pyramids",
]
