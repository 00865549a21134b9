"""The report is one file, loads nothing, escapes everything and shows every part."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from guardjax.eval import figures
from guardjax.eval.gallery import Picture, gallery_cases
from guardjax.eval.report import Report, render_report, save_report
from guardjax.eval.tables import ResultRow
from tests.eval.fake_report import fake_report
from tests.eval.fake_run import fake_predictions

ATTACK = "<img src=x onerror=alert(1)>\"'</script>{{ 7*7 }}"


@pytest.fixture(scope="module", name="page")
def _page():
    return render_report(fake_report(draws=20))


class Tags(html.parser.HTMLParser):
    """Collects tags and checks that they are balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(page):
    parser = Tags()
    parser.feed(page)
    assert not parser.open
    return parser.seen


def test_nothing_is_loaded_from_outside(page):
    for tag, attributes in tags(page):
        assert tag not in ("link", "iframe", "object", "base", "form", "svg")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "src" or value.startswith("data:image/png;base64,")
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page


def test_every_part_is_there(page):
    for text in ("Results", "Differences", "Figures", "Edited pairs", "Where this comes from",
                 "GRPO, varied policies − SFT, varied policies", "full runs, checked in",
                 "Something wrong", "image-rendering: pixelated"):
        assert text in page
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_hostile_text_is_escaped_everywhere():
    variant = f"v{ATTACK}"
    rows = [row for row in fake_predictions(variant=variant) if row.judged]
    rows = [type(row)(**{**vars(row), "pair_id": ATTACK + row.pair_id,
                         "output": f"<think>{ATTACK}</think><answer>safe</answer>",
                         "problem": ATTACK}) for row in rows]
    pictures = {row.image_id: Picture(np.zeros((8, 8, 3), np.uint8), ATTACK) for row in rows}
    policies = {row.policy_id: (ATTACK, ATTACK * 20) for row in rows}
    cases = gallery_cases(rows, pictures, policies, variants=[variant],
                          notes={row.pair_id: ATTACK for row in rows})
    page = render_report(Report(
        title=ATTACK, subtitle=ATTACK, lead=[ATTACK], names={variant: ATTACK},
        rows=[ResultRow(variant, "test", "f1", 0.5, 0.4, 0.6, 9, source=ATTACK)],
        contrasts=[ResultRow(variant, ATTACK, ATTACK, 0.1, 0.0, 0.2, 9)], cases=cases,
        provenance={ATTACK: ATTACK}))
    assert "<img src=x" not in page and page.count("<script>") == page.count("</script>") == 1
    assert "{{ 7*7 }}" in page      # shown, not evaluated
    tags(page)


def test_gallery_pictures_are_the_pixels(page):
    sizes = set()
    for match in re.finditer(r'<img src="data:image/png;base64,([^"]+)" alt="(before|after)', page):
        sizes.add(Image.open(io.BytesIO(base64.b64decode(match[1]))).size)
    assert sizes == {(48, 48)}


def test_an_empty_report_is_still_a_page(tmp_path):
    save_report(tmp_path / "out" / "report.html", Report(title="Nothing yet"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Nothing yet" in page and "<table" not in page and "<script>" not in page


def test_undefined_numbers_do_not_break_the_page():
    nan = float("nan")
    page = render_report(Report(title="t", rows=[
        ResultRow("a", "test", "f1", nan, nan, nan, 0), ResultRow("b", "test", "f1", 1, 1, 1, 3)]))
    assert "nan" not in page.replace("tabular-nums", "")


def test_gallery_prefers_pairs_whose_labels_flip_and_needs_every_variant():
    rows = fake_predictions(variant="a") + fake_predictions(variant="b")
    pictures = {row.image_id: Picture(np.zeros((8, 8, 3), np.uint8), row.image_id)
                for row in rows}
    policies = {f"p{i}": (f"P{i}", "R1: no knife.") for i in range(6)}
    cases = gallery_cases(rows, pictures, policies, variants=["a", "b"], limit=5)
    assert len(cases) == 5 and cases[0].flips
    assert [case.flips for case in cases] == sorted((case.flips for case in cases), reverse=True)
    assert all(len(cell.answers) == 2 for case in cases for row in case.policies
               for cell in row.cells)
    assert [picture.caption[-1] for picture in cases[0].pictures] == ["a", "b"]
    assert not gallery_cases(rows, pictures, policies, variants=["a", "c"])
    assert not gallery_cases(rows, {}, policies, variants=["a"])


def png_size(png):
    return Image.open(io.BytesIO(png)).size


def test_figures_are_png_and_the_same_twice():
    panels = {"reward": {"a": [(0, 0.1), (10, 0.5)], "b": []}, "PSS": {"a": [(0, 0.2)]}}
    curves = figures.learning_curves(panels, as_percent=["PSS"])
    assert curves == figures.learning_curves(panels, as_percent=["PSS"])
    matrix = np.array([[0.2, np.nan], [1.0, 0.0]])
    bars = [ResultRow("a", "test", "f1", 0.5, 0.6, 0.7, 9),
            ResultRow("b", "test", "f1", np.nan, np.nan, np.nan, 0)]
    for png in (curves, figures.heat_map(matrix, "ab", "cd", title="SFT"),
                figures.bars(bars, title="F1")):
        assert min(png_size(png)) > 100
    with pytest.raises(ValueError, match="its names say"):
        figures.heat_map(matrix, "abc", "cd")
    for draw in (figures.learning_curves, figures.bars):
        with pytest.raises(ValueError, match="no "):
            draw([])


def test_series_and_matrix_of_results():
    rows = [{"step": 1, "pss": 0.2}, {"step": 2}, {"step": 3, "pss": float("nan")}, {"pss": 1},
            {"step": 4, "pss": 1}]
    assert figures.series_from_rows(rows, "pss") == [(1.0, 0.2), (4.0, 1.0)]
    results = [ResultRow("sft_l1", "ladder/L2", "macro_f1", 0.4, 0, 1, 9),
               ResultRow("sft_l1", "ladder/L1", "macro_f1", 0.9, 0, 1, 9, seed=3)]
    matrix = figures.result_matrix(results, ["sft_l1", "sft_l2"], ["ladder/L1", "ladder/L2"],
                                   "macro_f1")
    assert matrix[0, 1] == 0.4 and np.isnan(matrix).sum() == 3
