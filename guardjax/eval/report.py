"""One HTML file that can be mailed: table, figures and a gallery, with nothing loaded from outside.

Everything that a model, a policy or a file name says is escaped by the template, and a content
security policy in the page forbids it to load or send anything. Pictures are pixels, encoded anew.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from guardjax.atomic import write_bytes, write_text
from guardjax.eval.gallery import Case, Picture
from guardjax.eval.metrics import METRICS
from guardjax.eval.summary import MINUS
from guardjax.eval.tables import (
    COLUMNS,
    THIS_RUN,
    Column,
    ResultRow,
    TableLine,
    chance,
    layout,
    percent,
)

FIGURES = "figures"     # folder beside the page
# A photograph on the page: 24 of pure noise, the worst case, stay below 5 MB.
_PHOTO_PIXELS, _PHOTO_QUALITY = 384, 80


@dataclasses.dataclass(frozen=True)
class ReportFigure:
    """A figure: PNG bytes, a title, and a sentence that says what to see in it."""

    title: str
    png: bytes
    caption: str = ""
    width: int = 960        # widest display width in CSS pixels


@dataclasses.dataclass(frozen=True)
class ReportTable:
    """A further table of results under the main one."""

    title: str
    rows: Sequence[ResultRow]
    variants: Sequence[str] | None = None
    columns: Sequence[Column] = COLUMNS
    note: str = ""
    folded: bool = False    # closed until the reader opens it


@dataclasses.dataclass(frozen=True)
class PlainTable:
    """A table of text, such as what each run cost; the first column names the line."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report shows, in this order; empty parts are left out."""

    title: str
    subtitle: str = ""
    lead: Sequence[str] = ()                        # paragraphs
    rows: Sequence[ResultRow] = ()
    variants: Sequence[str] | None = None           # order of the table
    columns: Sequence[Column] = COLUMNS
    resampled: str = "crossed over scenes, policies and seeds"          # by the bootstrap
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)  # variant -> name
    tables: Sequence[ReportTable] = ()
    contrasts: Sequence[ResultRow] = ()             # differences of two variants
    plain_tables: Sequence[PlainTable] = ()         # last; first where there are no others
    figures: Sequence[ReportFigure] = ()
    cases: Sequence[Case] = ()
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)


def page_environment(*packages: str) -> jinja2.Environment:
    """Templates that escape everything, of `packages` first; pages share `page.css` of here."""
    loaders = [jinja2.PackageLoader(package) for package in (*packages, "guardjax.eval")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, png=_data_uri)
    return environment


def render_report(report: Report) -> str:
    """The HTML page."""
    environment = page_environment()
    environment.filters.update(
        picture=_picture_uri, points=_points, chance=chance,
        metric=lambda name: METRICS[name].title if name in METRICS else name,
        contrast=lambda name: MINUS.join(report.names.get(v, v) for v in name.split(MINUS)))
    main = ReportTable("Results", report.rows, report.variants, report.columns)
    tables = [(table, lines, _best(lines, table.columns)) for table in (main, *report.tables)
              for lines in [layout(table.rows, table.variants, table.columns)] if lines]
    return environment.get_template("report.html.j2").render(
        report=report, tables=tables, this_run=THIS_RUN,
        variants=_gallery_variants(report.cases))


def save_report(path: str | Path, report: Report) -> None:
    """Writes the page in one step, and its figures as PNG into `figures` beside it.

    Those of an earlier page of this name are replaced, whatever they showed.
    """
    path = Path(path)
    folder, written = path.parent / FIGURES, set()
    for number, figure in enumerate(report.figures, start=1):
        name = re.sub(r"[^a-z0-9]+", "-", figure.title.lower()).strip("-")[:60]
        written.add(folder / f"{path.stem}-{number:02}-{name}.png")
        write_bytes(folder / f"{path.stem}-{number:02}-{name}.png", figure.png)
    numbered = re.compile(re.escape(path.stem) + r"-\d{2,}-[a-z0-9-]*\.png")
    for file in folder.iterdir() if folder.is_dir() else ():
        if numbered.fullmatch(file.name) and file not in written:
            file.unlink()
    write_text(path, render_report(report))


def _gallery_variants(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(answer.variant for case in cases for row in case.policies
                              for cell in row.cells for answer in cell.answers))


def _best(lines: Sequence[TableLine], columns: Sequence[Column]) -> set[tuple[int, int]]:
    """(line, column) of the best value of each column; of a rate of failure the lowest."""
    best = set()
    for c, column in enumerate(columns):
        values = {i: round(line.cells[c].value, 6) for i, line in enumerate(lines)
                  if line.cells[c] is not None and not np.isnan(line.cells[c].value)}
        if len(set(values.values())) < 2:
            continue
        pick = min if column.metric == "invalid_rate" else max
        best |= {(i, c) for i, value in values.items() if value == pick(values.values())}
    return best


def _points(value: float) -> str:
    """A difference of shares in points, with its sign: "+3.1", "−0.4"."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _picture_uri(picture: Picture) -> str:
    """The pixels encoded anew, so that nothing else of a file (EXIF, comments) comes along."""
    out, image = io.BytesIO(), Image.fromarray(np.asarray(picture.image, np.uint8))
    if not picture.veiled:
        image.save(out, "PNG", optimize=True)
        return _data_uri(out.getvalue())
    image.thumbnail((_PHOTO_PIXELS, _PHOTO_PIXELS))
    image.save(out, "JPEG", quality=_PHOTO_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
