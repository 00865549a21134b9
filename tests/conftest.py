"""What not every machine has, and how much of it ran: the reference implementation, a browser."""

from __future__ import annotations

import shutil

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Fixture -> what the summary calls its tests.
_COUNTED = {"live": "live comparisons with the reference", "browser": "pages in a real browser"}


@pytest.fixture
def live(request: pytest.FixtureRequest) -> None:
    """For tests that ask the reference itself; skips them where torch is not installed."""
    request.node.user_properties.append(("live", "asked"))
    pytest.importorskip("torch", reason="the live reference needs torch (extra `parity`)")
    request.node.user_properties.append(("live", "ran"))


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> str:
    """The path of a Chromium or Chrome; skips the test where there is none."""
    request.node.user_properties.append(("browser", "asked"))
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser on the PATH: {', '.join(_BROWSERS)}")
    request.node.user_properties.append(("browser", "ran"))
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says it, so that a comparison that nobody runs is noticed.

    Counted from the reports: they alone come back from the processes that run the tests.
    """
    reports = [report for kind in terminalreporter.stats.values() for report in kind
               if isinstance(report, pytest.TestReport)]
    for fixture, title in _COUNTED.items():
        asked, ran = ({report.nodeid for report in reports if mark in report.user_properties}
                      for mark in ((fixture, "asked"), (fixture, "ran")))
        if asked:
            terminalreporter.write_line(f"{title}: {len(ran)} of {len(asked)} ran")
