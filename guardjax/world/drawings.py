"""Objects that no emoji set has, drawn by us as SVG, in the manner of each artist.

The emblems are abstract: hexagon with waves, ring with a square, tilted tile with dots. They stand
for "symbols that a policy bans" and are not modelled on any real sign.
"""

from __future__ import annotations

import re

# "openmoji" has a black outline and flat colour; "noto" has none, and shades its shapes.
_STYLE = {
    "openmoji": 'stroke="#000000" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"',
    "noto": 'stroke="#00000030" stroke-width="0.8" stroke-linejoin="round"',
}

_SHADE = (
    '<defs><linearGradient id="shade" x1="0" y1="0" x2="0" y2="1">'
    '<stop offset="0" stop-color="#ffffff" stop-opacity="0.28"/>'
    '<stop offset="0.5" stop-color="#ffffff" stop-opacity="0"/>'
    '<stop offset="1" stop-color="#000000" stop-opacity="0.22"/></linearGradient></defs>'
)


def _leaf(angle: float, length: float, width: float) -> str:
    tip = 56 - length
    return (
        f'<path transform="rotate({angle} 36 56)" d="M36,56 '
        f"C{36 - width},{56 - 0.35 * length} {36 - 0.6 * width},{56 - 0.8 * length} 36,{tip} "
        f'C{36 + 0.6 * width},{56 - 0.8 * length} {36 + width},{56 - 0.35 * length} 36,56 Z"/>'
    )


_SHAPES: dict[str, str] = {
    "cigar": (
        '<g transform="rotate(-28 36 36)">'
        '<path fill="#8a5a33" d="M9,29 H56 Q66,30 66,36 Q66,42 56,43 H9 Z"/>'
        '<path fill="#d22f27" d="M40,29 H49 V43 H40 Z"/>'
        '<path fill="#fcea2b" d="M43,33 H46 V39 H43 Z"/>'
        '<path fill="#9b9b9a" d="M4,30 H11 V42 H4 Z"/></g>'
        '<path fill="#c8cdd0" d="M8,40 Q2,33 8,27 Q14,20 9,12 Q19,18 15,27 Q11,34 14,38 Z"/>'
    ),
    "pipe": (
        '<path fill="#3f3f3f" d="M29,50 Q44,48 53,31 L67,27 L68,33 L58,37 Q48,58 27,60 Z"/>'
        '<path fill="#6a462f" d="M6,26 H34 V46 Q34,61 20,61 Q6,61 6,46 Z"/>'
        '<path fill="#a57939" d="M5,23 H35 V30 H5 Z"/>'
        '<path fill="#c8cdd0" d="M17,18 Q11,13 17,9 Q21,6 18,2 Q28,6 23,12 Q19,16 22,18 Z"/>'
    ),
    "cannabis": (
        '<g fill="#5c9e31">'
        + _leaf(-104, 24, 4) + _leaf(104, 24, 4)
        + _leaf(-66, 36, 6) + _leaf(66, 36, 6)
        + _leaf(-32, 46, 7) + _leaf(32, 46, 7) + _leaf(0, 53, 8)
        + '<path fill="#3f7a1f" d="M35,54 H37 V70 H35 Z"/></g>'
    ),
    "vask": (
        '<path fill="#8967aa" d="M36,4 L64,20 V52 L36,68 L8,52 V20 Z"/>'
        '<path fill="#ffffff" d="M14,28 Q25,18 36,28 T58,28 V36 Q47,46 36,36 T14,36 Z"/>'
        '<path fill="#fcea2b" d="M14,45 Q25,35 36,45 T58,45 V50 Q47,60 36,50 T14,50 Z"/>'
    ),
    "torl": (
        '<path fill="#00a5a5" fill-rule="evenodd" d="M36,5 A31,31 0 1 1 35.9,5 Z'
        ' M36,20 A16,16 0 1 0 36.1,20 Z"/>'
        '<path fill="#f1b31c" d="M28,28 H44 V44 H28 Z"/>'
        '<path fill="#ffffff" d="M36,5 A31,31 0 0 1 67,36 H52 A16,16 0 0 0 36,20 Z"/>'
    ),
    "nemb": (
        '<g transform="rotate(18 36 36)">'
        '<path fill="#e67a94" d="M18,8 H54 Q64,8 64,18 V54 Q64,64 54,64 H18 Q8,64 8,54'
        ' V18 Q8,8 18,8 Z"/>'
        '<path fill="#1e50a0" d="M34,14 A9,9 0 1 1 33.9,14 Z M26,36 A7,7 0 1 1 25.9,36 Z'
        ' M46,38 A10,10 0 1 1 45.9,38 Z"/></g>'
    ),
}

DRAWN: tuple[str, ...] = tuple(_SHAPES)


def drawing(name: str, artist: str) -> str:
    """SVG text [72 x 72 view box] of an object in an artist's manner.

    Raises:
        KeyError: we did not draw this object (`DRAWN` lists those that we did).
    """
    if name not in _SHAPES:
        raise KeyError(f"no drawing of {name!r}; we drew {', '.join(DRAWN)}")
    shapes = _SHAPES[name]
    body = f"<g {_STYLE[artist]}>{shapes}</g>"
    if artist == "noto":
        body = _SHADE + body + _shaded(shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{body}</svg>'


def _shaded(shapes: str) -> str:
    """The same shapes once more, filled with the shading gradient instead of colour."""
    return re.sub(r'fill="#[0-9a-fA-F]+"', 'fill="url(#shade)"', shapes)
