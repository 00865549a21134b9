"""What benchmarks call ok, and how they say it."""

import pathlib

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
NAN = float("nan")


@pytest.fixture(name="bars")
def _bars(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bars
    return bars


@pytest.mark.parametrize("value, least, most, shown", [
    (3.0, 3.0, None, "3.000 x >=3 ok"),
    (2.99, 3.0, None, "2.990 x >=3 FAIL"),
    (1 / 3, None, 1 / 3, "0.333 x <=0.3333 ok"),
    (0.34, None, 1 / 3, "0.340 x <=0.3333 FAIL"),
    (0.99, 0.99, 1.01, "0.990 x 0.99-1.01 ok"),
    (0.98, 0.99, 1.01, "0.980 x 0.99-1.01 FAIL"),
    (1.02, 0.99, 1.01, "1.020 x 0.99-1.01 FAIL"),
    (0.0, 0.0, None, "0.000 x >=0 ok"),
    (0.1, None, 0.0, "0.100 x <=0 FAIL"),
    (5.0, None, None, "5.000 x - -"),
    (None, None, None, "not_measured x - -"),
    (None, 3.0, None, "not_measured x >=3 FAIL"),
    (None, None, 3.0, "not_measured x <=3 FAIL"),
    (NAN, 3.0, None, "nan x >=3 FAIL"),
    (NAN, None, 3.0, "nan x <=3 FAIL"),
    (NAN, None, None, "nan x - -")])
def test_a_bar_holds_only_what_was_measured(bars, value, least, most, shown):
    line = bars.Line("step/x", value, "x", least, most)
    assert str(line) == f"step/x {shown}"
    assert line.ok is not shown.endswith("FAIL")


def test_a_report_fails_with_any_of_its_lines(bars, capsys):
    good, bad, free = (bars.Line("a", 1.0, "s", most=2.0), bars.Line("b", 3.0, "s", most=2.0),
                       bars.Line("c", 9.0, "s"))
    assert bars.report([good, free]) == 0
    assert bars.report(iter([bad, good])) == 1
    assert bars.report([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a 1.000 s <=2 ok", "c 9.000 s - -", "b 3.000 s <=2 FAIL", "a 1.000 s <=2 ok"]


def test_a_line_is_said_before_the_next_is_measured(bars, capsys):
    """So that a benchmark that breaks down has said what it found until then."""
    def measured():
        yield bars.Line("a", 1.0, "s")
        assert capsys.readouterr().out == "a 1.000 s - -\n"
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        bars.report(measured())
