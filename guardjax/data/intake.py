"""From an untrusted file to pixels: the one door through which a person's pictures come in.

What is scored is a plain `[H, W, 3]` uint8 array; nothing of the file itself goes any further.
The rules, all of them:

* **Formats.** PNG (also animated), JPEG, WebP, GIF and BMP, told by the first bytes and never by
  the name. Anything else is `E_FORMAT`.
* **Limits** (`Limits`) on bytes and on the size in the header are checked before pixels are
  decoded: `E_TOO_LARGE`, and `E_DIMENSIONS` for slivers.
* **Whole files only.** A file that stops early is `E_TRUNCATED`, also where a lenient decoder
  would fill in grey or leave out the last frames. Anything else undecodable, and an empty file,
  is `E_DECODE`.
* **Orientation.** The EXIF orientation is applied. Other metadata (ICC profile, GPS, text, HDR
  gain map) is neither used nor passed on.
* **Colour.** 8-bit RGB by Pillow's conversion; of 16-bit samples the high byte; CMYK without a
  profile.
* **Transparency.** Where a pixel is not opaque, the picture is laid over white (`pixels`) and
  over black (`alternate`): whoever judges must judge both.
* **Animation.** Runs of equal frames count once; of the distinct frames up to
  `Limits.max_frames`, evenly spaced with the first and the last, are kept. Whoever judges must
  let the worst frame win. Of a multi-picture JPEG only the first picture, which viewers show.

Colours, and transparency over white, are those of transformers' image processor to the last bit.
It differs in 16-bit grey, which it clips, in ignoring the orientation, and in seeing first frames
only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

# Part of a verdict's identity: raise it when the same file comes to give other pixels.
INTAKE_VERSION = "1"


class IntakeError(ValueError):
    """A picture that is not taken in.

    `code` is one of `E_READ` (no regular file, or the system will not read it), `E_FORMAT`,
    `E_TOO_LARGE`, `E_DIMENSIONS`, `E_TRUNCATED`, `E_DECODE`; `message` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is taken in. Pixels are those kept of one picture, all its frames together."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    max_animation_pixels: int = 500_000_000     # all frames that must be decoded to choose from
    min_side: int = 8
    max_aspect: float = 20.0
    max_frames: int = 8


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame: `index` in the file, over white and, if not opaque, over black."""

    index: int
    pixels: np.ndarray                      # [H, W, 3] uint8
    alternate: np.ndarray | None = None     # [H, W, 3] uint8

    @property
    def views(self) -> tuple[np.ndarray, ...]:
        """Everything that must be judged of this frame."""
        return (self.pixels,) if self.alternate is None else (self.pixels, self.alternate)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that was taken in. `sha256` is of the file's bytes; `size` is (width, height)."""

    sha256: str
    format: str
    size: tuple[int, int]
    frames: tuple[Frame, ...]
    frame_count: int                        # in the file; `frames` may hold fewer
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> np.ndarray:
        """The first frame, `[H, W, 3]` uint8."""
        return self.frames[0].pixels

    @property
    def alternates(self) -> tuple[np.ndarray, ...]:
        """The first frame over black, where it is not opaque; else nothing."""
        return self.frames[0].views[1:]


def load_picture(source: str | Path | bytes, limits: Limits = Limits()) -> Picture:
    """Takes in one picture, from a path or from the file's bytes.

    Raises `IntakeError`, and nothing else, whatever the bytes are.
    """
    data = source if isinstance(source, bytes) else read_file(source, limits)
    if not data:
        raise IntakeError("E_DECODE", "the file is empty")
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(len(data), limits)
    kind = _sniff(data)
    _check_whole(kind, data)
    try:
        with warnings.catch_warnings():     # of malformed metadata, which is not used
            warnings.simplefilter("ignore")
            return _decode(kind, data, limits)
    except IntakeError:
        raise
    except MemoryError as error:
        raise IntakeError("E_TOO_LARGE", "not enough memory to decode the picture") from error
    except Exception as error:      # decoders raise nearly every type on hostile bytes
        raise _as_intake_error(error) from error


def read_file(path: str | Path, limits: Limits = Limits()) -> bytes:
    """The bytes of one regular file within the size limit. Raises `IntakeError`."""
    path = Path(path)
    try:
        info = path.stat()
        # A pipe or device would block for ever.
        if not stat.S_ISREG(info.st_mode):
            raise IntakeError("E_READ", "not a regular file")
        if info.st_size > limits.max_bytes:
            raise _too_many_bytes(info.st_size, limits)
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:      # ValueError: a null byte in the name
        if isinstance(error, IntakeError):
            raise
        raise IntakeError("E_READ", getattr(error, "strerror", None) or str(error)) from error


def _too_many_bytes(size: int, limits: Limits) -> IntakeError:
    return IntakeError("E_TOO_LARGE", f"{size:,} bytes; the limit is {limits.max_bytes:,}")


def _sniff(data: bytes) -> str:
    """The format by signature, as Pillow names it."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and len(data) >= 26:
        return "BMP"
    raise IntakeError("E_FORMAT", "not a PNG, JPEG, WebP, GIF or BMP picture")


def _check_whole(kind: str, data: bytes) -> None:
    """Finds the end mark that a complete file has; decoders alone let some cut files pass."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: cut pictures would be "
                           "filled up with grey and judged")
    whole = True
    if kind == "PNG":
        whole = _png_ends(data)
    elif kind == "JPEG":
        # The end mark must follow the last scan; a thumbnail in the header has one of its own.
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    elif kind == "WEBP":
        whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    elif kind == "GIF":
        whole = _gif_ends(data)
    if not whole:
        raise IntakeError("E_TRUNCATED", f"the {kind} file stops before its end")


def _png_ends(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        at += 12 + length       # length, type, data, checksum
        if data[at - 8 - length:at - 4 - length] == b"IEND":
            return at <= len(data)
    return False


def _gif_ends(data: bytes) -> bool:
    """Walks the blocks to the trailer, without which a decoder just sees fewer frames."""
    def after_colours(at: int, flags: int) -> int:
        return at + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)

    try:
        at = after_colours(13, data[10])
        while data[at] != 0x3B:
            if data[at] == 0x2C:                        # picture: descriptor, colours, code size
                at = after_colours(at + 10, data[at + 9]) + 1
            elif data[at] == 0x21:                      # extension
                at += 2
            else:
                return False
            while data[at]:                             # sub-blocks up to an empty one
                at += data[at] + 1
            at += 1
    except IndexError:
        return False
    return True


def _decode(kind: str, data: bytes, limits: Limits) -> Picture:
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        _check_size(image.size, limits)
        # A multi-picture JPEG hides pictures that no viewer shows as an animation.
        count = 1 if kind == "JPEG" else getattr(image, "n_frames", 1)
        notes = []
        if count == 1:
            frames = [_frame(image, 0, kind, notes)]
        else:
            indices, distinct = _choose_frames(image, count, limits)
            frames = []
            for index in indices:
                image.seek(index)
                frames.append(_frame(image, index, kind, notes))
            notes.append(f"animation: {len(frames)} of {count} frames scored, "
                         f"{distinct} are distinct")
    height, width = frames[0].pixels.shape[:2]
    if any(frame.alternate is not None for frame in frames):
        notes.append("transparent: over white and over black")
    return Picture(sha256=hashlib.sha256(data).hexdigest(), format=kind, size=(width, height),
                   frames=tuple(frames), frame_count=count, notes=tuple(dict.fromkeys(notes)))


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise IntakeError("E_TOO_LARGE", f"{width}x{height} pixels; the limit is "
                                         f"{limits.max_pixels:,} in all")
    if min(size) < limits.min_side:
        raise IntakeError("E_DIMENSIONS", f"{width}x{height} pixels; the shorter side must have "
                                          f"at least {limits.min_side}")
    if max(size) > limits.max_aspect * min(size):
        raise IntakeError("E_DIMENSIONS", f"{width}x{height} pixels; one side may be at most "
                                          f"{limits.max_aspect:g} times the other")


def _choose_frames(image: Image.Image, count: int, limits: Limits) -> tuple[list[int], int]:
    """(indices to keep, how many frames differ from the one before).

    Looking at all frames keeps a single-frame flash in a still animation from being skipped.
    """
    width, height = image.size
    kept = min(count, limits.max_frames) * width * height
    if kept > limits.max_pixels or count * width * height > limits.max_animation_pixels:
        raise IntakeError("E_TOO_LARGE", f"an animation of {count} frames of {width}x{height} "
                                         "pixels")
    distinct, last = [], None
    for index in range(count):
        image.seek(index)
        _check_size(image.size, limits)
        image.load()
        digest = hashlib.sha256(image.convert("RGBA").tobytes()).digest()
        if digest != last:
            distinct.append(index)
        last = digest
    places = np.linspace(0, len(distinct) - 1, min(len(distinct), limits.max_frames))
    return [distinct[i] for i in np.unique(places.round().astype(int))], len(distinct)


def _frame(image: Image.Image, index: int, kind: str, notes: list[str]) -> Frame:
    image.load()
    frame: Image.Image = image
    try:
        frame = ImageOps.exif_transpose(image)
        if frame.size != image.size or image.getexif().get(0x0112, 1) != 1:
            notes.append("EXIF orientation applied")
    except Exception:       # malformed EXIF is not worth refusing a picture for
        notes.append("EXIF unreadable, orientation left as stored")
    if frame.mode != "RGB":
        notes.append(f"converted from {frame.mode}")
    rgb, alpha = _colours(frame)
    if alpha is None or (alpha == 255).all():
        return Frame(index, rgb)
    return Frame(index, _over(rgb, alpha, 255), _over(rgb, alpha, 0))


def _colours(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(colours `[H, W, 3]` uint8, opacity `[H, W]` uint8 or None)."""
    if image.mode.startswith("I"):
        # 16-bit grey, which Pillow's own conversion would clip at 255.
        samples = np.asarray(image).astype(np.int64)
        grey = np.clip(samples >> 8, 0, 255).astype(np.uint8)
        clear = image.info.get("transparency")
        alpha = None if clear is None else np.where(samples == clear, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), alpha
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy()
    return np.array(image.convert("RGB")), None


def _over(rgb: np.ndarray, alpha: np.ndarray, background: int) -> np.ndarray:
    """The colours over a uniform background, rounded to the nearest integer."""
    a = alpha[..., None].astype(np.uint32)
    return ((rgb * a + background * (255 - a) + 127) // 255).astype(np.uint8)


def _as_intake_error(error: Exception) -> IntakeError:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, Image.DecompressionBombError):
        return IntakeError("E_TOO_LARGE", text)
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return IntakeError("E_TRUNCATED", text)
    if isinstance(error, UnidentifiedImageError):
        text = "damaged header"     # Pillow's text shows an address in memory
    return IntakeError("E_DECODE", text)
