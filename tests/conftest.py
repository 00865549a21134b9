"""The live comparison with the reference implementation: where torch is, and how much of it ran."""

from __future__ import annotations

import pytest

_ASKED, _RAN = ("live", "asked"), ("live", "ran")


@pytest.fixture
def live(request: pytest.FixtureRequest) -> None:
    """For tests that ask the reference itself; skips them where torch is not installed."""
    request.node.user_properties.append(_ASKED)
    pytest.importorskip("torch", reason="the live reference needs torch (extra `parity`)")
    request.node.user_properties.append(_RAN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says it, so that a comparison that nobody runs is noticed.

    Counted from the reports: they alone come back from the processes that run the tests.
    """
    reports = [report for kind in terminalreporter.stats.values() for report in kind
               if isinstance(report, pytest.TestReport)]
    asked, ran = ({report.nodeid for report in reports if mark in report.user_properties}
                  for mark in (_ASKED, _RAN))
    if asked:
        terminalreporter.write_line(
            f"live comparisons with the reference: {len(ran)} of {len(asked)} ran")
