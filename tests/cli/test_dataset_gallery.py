"""Real pictures on a page: few, opened late, without what their files say, blurred until asked."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from guardjax.cli.dataset_gallery import PICTURES_SHOWN, dataset_cases
from guardjax.data.datasets.registry import open_dataset
from guardjax.data.datasets.record import example_id
from guardjax.eval.records import Prediction
from guardjax.eval.report import FIGURES, Report, ReportFigure, render_report, save_report
from tests.data import dataset_files as files

SECRET = "taken by Jane at 52.1N 4.3E"
ATTACK = "<img src=x onerror=alert(1)>\"'"


def photograph(seed, size=(600, 800)):
    """A JPEG of pure noise, the largest there can be, with EXIF and a comment."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010E] = SECRET
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, exif=exif, comment=SECRET)
    assert SECRET.encode() in out.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module", name="reader")
def _reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    rows = files.safe_edit_rows(pictures=30)
    for row in rows:
        picture = int(row["image_path"].split(".")[0])
        row["image"]["bytes"] = photograph(picture)
        if picture == 1:
            row["image_path"] = f"{ATTACK}.png"
    files.write_parquet(folder / "data/test-00000-of-00001.parquet", rows)
    return open_dataset("safeeditbench", folder)


def answers(reader, variant="m", wrong=()):
    rows = []
    for place, record in enumerate(reader.records):
        said = record.label if place // 3 not in wrong else "needs_review"
        rows.append(Prediction(
            model="m", variant=variant, seed=0, split="test", example_id=example_id(record),
            kind="judge", image_id=record.image_id, policy_id=record.policy.id,
            label=record.label, outcome=said, output=f"<think>{ATTACK}</think><answer>{said}",
            problem=None if said == record.label else "unknown_word"))
    return rows


def test_pictures_are_blurred_small_and_say_nothing_of_their_files(reader):
    page = render_report(Report(title="t", cases=dataset_cases(answers(reader), reader)))
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(found) == PICTURES_SHOWN and len(page) < 10e6
    for text in found:
        data = base64.b64decode(text)
        picture = Image.open(io.BytesIO(data))
        assert max(picture.size) == 384 and not picture.getexif()
        assert SECRET.encode() not in data and "comment" not in picture.info
    assert page.count('class="veil" aria-pressed="false"') == PICTURES_SHOWN
    assert "filter: blur(" in page and "press Enter" in page and "<h2>Pictures</h2>" in page
    assert "<img src=x" not in page and SECRET not in page


def test_only_those_that_are_shown_are_opened(reader, monkeypatch):
    opened, read = [], type(reader).__getitem__
    monkeypatch.setattr(type(reader), "__getitem__",
                        lambda self, place: opened.append(place) or read(self, place))
    cases = dataset_cases(answers(reader, wrong=range(20)), reader, limit=4)
    assert len(opened) == len(cases) == 4
    # As many where the guard is right as where it errs; those that policies disagree about first.
    right = [all(cell.answers[0].right for row in case.policies for cell in row.cells)
             for case in cases]
    assert sorted(right) == [False, False, True, True] and all(case.flips for case in cases)
    assert all(len(case.pictures) == 1 and case.pictures[0].veiled for case in cases)
    assert [row.policy_id for row in cases[0].policies] != []


def test_every_model_is_shown_beside_the_other(reader):
    rows = answers(reader, "base", wrong=range(30)) + answers(reader, "trained")
    cases = dataset_cases(rows, reader, limit=2)
    for case in cases:
        for row in case.policies:
            (cell,) = row.cells
            assert [answer.right for answer in cell.answers] == [False, True]
    page = render_report(Report(title="t", cases=cases))
    assert 'data-show="flips"' in page and 'data-show="wrong"' in page
    assert "trained" in page


def test_figures_are_files_beside_the_page(tmp_path):
    png = b"\x89PNG made up"
    save_report(tmp_path / "report.html", Report(title="t", figures=[
        ReportFigure("Policy by policy: runs/a", png), ReportFigure("../Curves", png)]))
    names = sorted(path.name for path in (tmp_path / FIGURES).iterdir())
    assert names == ["report-01-policy-by-policy-runs-a.png", "report-02-curves.png"]
    assert all((tmp_path / FIGURES / name).read_bytes() == png for name in names)


def test_figures_of_an_earlier_page_are_put_away_and_of_another_kept(tmp_path):
    png = b"\x89PNG made up"
    first = Report(title="t", figures=[ReportFigure(name, png) for name in ("A", "B")])
    for name in ("report", "report_dev"):
        save_report(tmp_path / f"{name}.html", first)
    (tmp_path / FIGURES / "report-mine.png").write_bytes(png)
    save_report(tmp_path / "report.html", Report(title="t", figures=[ReportFigure("C", png)]))
    assert sorted(path.name for path in (tmp_path / FIGURES).iterdir()) == [
        "report-01-c.png", "report-mine.png", "report_dev-01-a.png", "report_dev-02-b.png"]
