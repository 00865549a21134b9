"""Pictures of results as PNG bytes, drawn without any display or global state."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from guardjax.eval.tables import ResultRow, percent

# Okabe and Ito's colours: told apart by nearly everyone, also in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
INK, FAINT = "#1f2328", "#d8dce0"
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.edgecolor": FAINT, "axes.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.6, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "legend.frameon": False, "lines.linewidth": 1.8,
    "text.parse_math": False,       # a name with dollar signs is a name
}
_DPI = 160
_PANELS_A_LINE = 3
_CSS_AN_INCH = 84   # at which letters of 9 points are as large as a page's notes
_WIDEST = 12.6      # inches of a line of heat maps
_UPRIGHT = 7        # letters of a name that fits under a cell of a heat map
_LETTER = 0.085     # inches of a letter of a title
_LONGEST = 40       # letters of a name; policies and categories may have any

Series = Sequence[tuple[float, float]]      # (step, value)


def series_from_rows(
    rows: Iterable[Mapping[str, Any]], key: str, step_key: str = "step"
) -> list[tuple[float, float]]:
    """The (step, value) points of one key in rows of a metrics file; rows without it are passed
    over, and so are values that are no finite number."""
    points = []
    for row in rows:
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value) and step_key in row:
            points.append((float(row[step_key]), float(value)))
    return points


def learning_curves(
    panels: Mapping[str, Mapping[str, Series]], *, xlabel: str = "step",
    as_percent: Sequence[str] = (),
) -> bytes:
    """Panels, three a line: panel title -> name of a run -> its points.

    A run has one colour in all panels. Panels named in `as_percent` are shares, shown in per
    cent. Few points are drawn with dots.
    """
    if not panels:
        raise ValueError("no panel to draw")
    names = list(dict.fromkeys(name for runs in panels.values() for name in runs))
    with matplotlib.rc_context(STYLE):
        columns = min(_PANELS_A_LINE, len(panels))
        lines = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(4.2 * columns, 0.4 + 2.6 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis in axes[len(panels):]:
            axis.set_axis_off()
        for axis, (title, runs) in zip(axes, panels.items(), strict=False):
            scale = 100 if title in as_percent else 1
            for name, points in runs.items():
                x, y = np.array(points, float).reshape(-1, 2).T
                axis.plot(x, scale * y, color=COLOURS[names.index(name) % len(COLOURS)],
                          label=name, marker="o" if len(x) < 15 else None, markersize=3)
            axis.set_title(title)
            axis.set_xlabel(xlabel)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.grid(axis="x", visible=False)
            if title in as_percent:
                axis.set_ylim(0, 100)
        handles = {label: handle for axis in axes
                   for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center",
                          ncols=min(4 if columns > 1 else 3, len(handles)))
        return png_bytes(figure)


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, title: str = "",
    row_title: str = "trained on", column_title: str = "tested on",
) -> bytes:
    """Shares `[rows, columns]` as coloured cells with numbers in per cent; NaN stays blank."""
    return heat_maps({title: values}, rows, columns, row_title=row_title,
                     column_title=column_title)


def heat_maps(
    panels: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], *,
    row_title: str = "trained on", column_title: str = "tested on",
) -> bytes:
    """Several heat maps on one scale, as many a line as fit: title -> shares `[rows, columns]`."""
    for title, values in panels.items():
        if np.shape(values) != (len(rows), len(columns)):
            raise ValueError(f"heat map {title!r} is {np.shape(values)}, its names say "
                             f"({len(rows)}, {len(columns)})")
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False,
                                "axes.spines.bottom": False}):
        rows, columns = [short_name(name) for name in rows], [short_name(name) for name in columns]
        names, heads = max(map(len, rows)), max(map(len, columns))
        long = heads > _UPRIGHT
        cell = max(0.62, 0 if long else 0.095 * heads)
        # Long names of rows stand beside the first panel of a line only.
        panel, beside = 1.0 + cell * len(columns), max(0, 0.075 * (names - _UPRIGHT))
        a_line = min(len(panels), max(1, int((_WIDEST - beside) / panel)))
        lines = math.ceil(len(panels) / a_line)
        letters = max(12, int(cell * len(columns) / _LETTER))
        titles = [textwrap.fill(short_name(title, 2 * _LONGEST), letters) for title in panels]
        height = (0.84 + 0.16 * max(title.count("\n") + 1 for title in titles)
                  + 0.5 * len(rows) + (0.05 * heads if long else 0))
        figure = Figure(figsize=(panel * a_line + beside, height * lines), layout="constrained")
        axes = figure.subplots(lines, a_line, squeeze=False).ravel()
        for axis in axes[len(panels):]:
            axis.set_axis_off()
        for i, (axis, title, values) in enumerate(zip(axes, titles, panels.values(),
                                                      strict=False)):
            first = i % a_line == 0
            shares = 100 * np.asarray(values, float)
            axis.imshow(shares, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
            for (r, c), value in np.ndenumerate(shares):
                axis.text(c, r, percent(value / 100), ha="center", va="center",
                          color="white" if value > 55 else INK)
            axis.set_xticks(range(len(columns)), columns, rotation=40 if long else 0,
                            ha="right" if long else "center", rotation_mode="anchor")
            axis.set_yticks(range(len(rows)),
                            rows if first or names <= _UPRIGHT else [""] * len(rows))
            axis.tick_params(length=0)
            axis.set_xlabel(column_title)
            if first:
                axis.set_ylabel(row_title)
            if title:
                axis.set_title(title)
            # White lines between the cells.
            axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
            axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
            axis.grid(which="minor", color="white", linewidth=2)
            axis.tick_params(which="minor", length=0)
        return png_bytes(figure)


def result_matrix(
    rows: Iterable[ResultRow], variants: Sequence[str], splits: Sequence[str], metric: str,
) -> np.ndarray:
    """Results as `[variants, splits]`, means over seeds; cells without a result are NaN."""
    found = {(row.variant, row.split): row.value for row in rows
             if row.metric == metric and row.seed is None}
    return np.array([[found.get((variant, split), math.nan) for split in splits]
                     for variant in variants])


def bars(rows: Sequence[ResultRow], *, names: Mapping[str, str] | None = None,
         title: str = "", xlabel: str = "per cent") -> bytes:
    """One horizontal bar a row, in the order given, with its interval."""
    if not rows:
        raise ValueError("no bar to draw")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 0.9 + 0.32 * len(rows)), layout="constrained")
        axis: Axes = figure.subplots()
        places = np.arange(len(rows))
        values = 100 * np.array([row.value for row in rows])
        low, high = (100 * np.array([getattr(row, side) for row in rows])
                     for side in ("low", "high"))
        axis.barh(places, np.nan_to_num(values), height=0.62, color=COLOURS[0], alpha=0.85)
        # A percentile interval need not hold the value, and matplotlib takes no negative bars.
        reach = np.nan_to_num(np.maximum([values - low, high - values], 0))
        axis.errorbar(values, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2,
                      capsize=2.5)
        labels = [(names or {}).get(row.variant, row.variant) for row in rows]
        axis.set_yticks(places, labels)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        if np.nanmin(values, initial=0) >= 0:
            axis.set_xlim(0, 100)
        axis.set_xlabel(xlabel)
        if title:
            axis.set_title(title)
        return png_bytes(figure)


def display_width(png: bytes) -> int:
    """CSS pixels at which a figure of this module is best read: its own width, as its header has
    it (PNG specification, 11.2.2), at the size of a page's notes."""
    return round(int.from_bytes(png[16:20], "big") / _DPI * _CSS_AN_INCH)


def short_name(name: str, longest: int = _LONGEST) -> str:
    """The name on one line, cut where it is long."""
    name = " ".join(name.split())
    return name if len(name) <= longest else name[:longest - 1] + "…"


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    # Without the version of the drawing library the same numbers give the same bytes.
    figure.savefig(out, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return out.getvalue()
