"""The live comparison with the reference implementation: where torch is, and how much of it ran."""

from __future__ import annotations

import pytest

_ASKED = pytest.StashKey[int]()
_RAN = pytest.StashKey[int]()


@pytest.fixture
def live(request: pytest.FixtureRequest) -> None:
    """For tests that ask the reference itself; skips them where torch is not installed."""
    stash = request.config.stash
    stash[_ASKED] = stash.get(_ASKED, 0) + 1
    pytest.importorskip("torch", reason="the live reference needs torch (extra `parity`)")
    stash[_RAN] = stash.get(_RAN, 0) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter,
                            config: pytest.Config) -> None:
    """Says it, so that a comparison that nobody runs is noticed."""
    if asked := config.stash.get(_ASKED, 0):
        terminalreporter.write_line(
            f"live comparisons with the reference: {config.stash.get(_RAN, 0)} of {asked} ran")
