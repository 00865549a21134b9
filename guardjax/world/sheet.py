"""A contact sheet for people: records in a grid, enlarged, with caption and edit outline."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from guardjax.world.record import WorldRecord

_BACK, _INK, _FAINT, _OUTLINE = (255, 255, 255), (20, 20, 20), (120, 120, 120), (255, 0, 220)
_MARGIN = 8


def contact_sheet(
    records: Sequence[WorldRecord], columns: int = 4, scale: int = 3
) -> Image.Image:
    """Records in reading order, each enlarged `scale` times with nearest-neighbour.

    The members of a pair lie side by side if they follow each other and `columns` is even. The
    edited region is outlined. Returns an RGB picture.

    Raises:
        ValueError: no records, or columns or scale below 1.
    """
    if not records:
        raise ValueError("there are no records to show; give at least one")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns={columns} and scale={scale} must be 1 or more")
    columns = min(columns, len(records))
    side = max(record.image.shape[1] for record in records) * scale
    font = ImageFont.load_default(size=max(10, 4 * scale))
    letters = max(8, int(side / font.getlength("n")))
    texts = [_lines(record, letters) for record in records]
    line = font.getbbox("Ag")[3] + 3
    cell_height = side + max(map(len, texts)) * line + 2 * _MARGIN
    cell_width = side + _MARGIN
    rows = -(-len(records) // columns)
    sheet = Image.new(
        "RGB", (columns * cell_width + _MARGIN, rows * cell_height + _MARGIN), _BACK
    )
    draw = ImageDraw.Draw(sheet)
    for number, (record, lines) in enumerate(zip(records, texts, strict=True)):
        row, column = divmod(number, columns)
        left, top = _MARGIN + column * cell_width, _MARGIN + row * cell_height
        sheet.paste(_enlarged(record, scale), (left, top))
        for index, text in enumerate(lines):
            draw.text((left, top + side + 2 + index * line), text, font=font,
                      fill=_FAINT if index == 0 else _INK)
    return sheet


def _lines(record: WorldRecord, letters: int) -> list[str]:
    head = f"{record.edit_kind}, {record.role}"
    return [head[:letters], *textwrap.wrap(record.caption, letters)]


def _enlarged(record: WorldRecord, scale: int) -> Image.Image:
    """The picture, enlarged, with a line one pixel wide around the edited region's box."""
    height, width, _ = record.image.shape
    picture = Image.fromarray(record.image).resize(
        (width * scale, height * scale), Image.Resampling.NEAREST
    )
    rows, columns = np.nonzero(record.mask)
    if rows.size:
        box = (columns.min() * scale, rows.min() * scale,
               (columns.max() + 1) * scale - 1, (rows.max() + 1) * scale - 1)
        ImageDraw.Draw(picture).rectangle(tuple(map(int, box)), outline=_OUTLINE)
    return picture
