"""Every way a picture can be broken, hostile or odd, and what intake makes of it."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from guardjax.data.intake import IntakeError, Limits, load_picture, read_file

_RNG = np.random.default_rng(0)
SCENE = np.kron(_RNG.integers(0, 256, (4, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))  # 32x48


def encode(image, kind, **options):
    out = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(out, kind, **options)
    return out.getvalue()


def code_of(source, **limits):
    with pytest.raises(IntakeError) as caught:
        load_picture(source, Limits(**limits))
    assert caught.value.message
    return caught.value.code


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind):
    data = encode(SCENE, kind, **({"lossless": True} if kind == "WEBP" else {}))
    picture = load_picture(data)
    np.testing.assert_array_equal(picture.pixels, SCENE)
    assert picture.format == kind and picture.size == (48, 32)
    assert picture.sha256 == hashlib.sha256(data).hexdigest()
    assert picture.alternates == () and picture.frame_count == 1


def test_jpeg_is_close():
    pixels = load_picture(encode(SCENE, "JPEG", quality=95, subsampling=0)).pixels
    assert np.abs(pixels.astype(int) - SCENE).mean() < 4


def test_the_signature_decides_not_the_name(tmp_path):
    liar = tmp_path / "picture.jpg"
    liar.write_bytes(encode(SCENE, "PNG"))
    assert load_picture(liar).format == "PNG"
    assert load_picture(read_file(liar)).sha256 == load_picture(liar).sha256
    script = tmp_path / "script.png"
    script.write_text("#!/bin/sh\necho <script>alert(1)</script>\n")
    assert code_of(script) == "E_FORMAT"


@pytest.mark.parametrize("data", [
    b"II*\0" + bytes(64), b"%PDF-1.7\n" + bytes(64), b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(64),
    b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"SIMPLE  =                    T" + bytes(64),
    b"\0\0\0\x20ftypavif" + bytes(64), b"hello", b"\0", b"BM"])
def test_other_formats_are_refused(data):
    assert code_of(data) == "E_FORMAT"


def test_empty_missing_and_special_files(tmp_path):
    assert code_of(b"") == "E_DECODE"
    empty = tmp_path / "empty.png"
    empty.touch()
    assert code_of(empty) == "E_DECODE"
    assert code_of(tmp_path / "missing.png") == "E_READ"
    assert code_of(tmp_path) == "E_READ"
    assert code_of("null\0byte.png") == "E_READ"
    os.mkfifo(tmp_path / "pipe.png")
    assert code_of(tmp_path / "pipe.png") == "E_READ"


def animation(kind, frames):
    images = [Image.fromarray(frame) for frame in frames]
    return encode(images[0], kind, save_all=True, append_images=images[1:], duration=50,
                  **({"lossless": True} if kind == "WEBP" else {}))


NOISE = _RNG.integers(0, 256, (40, 40, 3), np.uint8)
FILES = {
    "PNG": encode(NOISE, "PNG"), "JPEG": encode(NOISE, "JPEG"), "BMP": encode(NOISE, "BMP"),
    "progressive": encode(NOISE, "JPEG", progressive=True), "WEBP": encode(NOISE, "WEBP"),
    "GIF": encode(NOISE, "GIF"),
    "animated GIF": animation("GIF", [NOISE, NOISE[::-1], NOISE[:, ::-1]]),
    "animated PNG": animation("PNG", [NOISE, NOISE[::-1], NOISE[:, ::-1]]),
    "animated WebP": animation("WEBP", [NOISE, NOISE[::-1], NOISE[:, ::-1]]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99, 1.0])
def test_a_cut_file_is_never_filled_up(name, share):
    data = FILES[name]
    load_picture(data)
    cut = data[:min(int(len(data) * share), len(data) - 2)]
    assert code_of(cut) == "E_TRUNCATED"


@pytest.mark.parametrize("name", FILES)
def test_noise_in_a_file_raises_nothing_but_intake_errors(name):
    rng = np.random.default_rng(1)
    for _ in range(40):
        data = bytearray(FILES[name])
        for place in rng.integers(0, len(data), 6):
            data[place] = rng.integers(256)
        try:
            picture = load_picture(bytes(data))
        except IntakeError:
            continue
        assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[2] == 3


def test_lenient_loading_by_other_code_is_noticed(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        load_picture(FILES["PNG"])


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    data = b"IDAT" + zlib.compress(bytes(1000))
    return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
            + struct.pack(">I", zlib.crc32(body)) + struct.pack(">I", len(data) - 4) + data
            + struct.pack(">I", zlib.crc32(data)) + end)


def test_bombs_are_refused_by_their_header(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert code_of(png_header(60_000, 60_000)) == "E_TOO_LARGE"
    assert code_of(png_header(7000, 7000)) == "E_TOO_LARGE"
    assert code_of(FILES["PNG"], max_bytes=100) == "E_TOO_LARGE"
    assert code_of(FILES["animated PNG"], max_animation_pixels=4000) == "E_TOO_LARGE"


def test_byte_limit_holds_before_reading(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(FILES["PNG"])
    assert code_of(path, max_bytes=100) == "E_TOO_LARGE"


def test_a_bomb_in_a_text_chunk_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 20_000_000, zip=True)
    assert code_of(encode(SCENE, "PNG", pnginfo=info)) in ("E_DECODE", "E_TOO_LARGE")


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 10_000), (8, 161), (161, 8)])
def test_slivers_are_refused(size):
    assert code_of(encode(np.zeros((*size, 3), np.uint8), "PNG")) == "E_DIMENSIONS"


def test_the_smallest_and_the_longest_allowed():
    for size in ((8, 8), (8, 160), (160, 8)):
        assert load_picture(encode(np.zeros((*size, 3), np.uint8), "PNG")).pixels.shape[:2] == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_gives_the_upright_picture(orientation):
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}
    upright = Image.fromarray(SCENE)
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = load_picture(encode(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(picture.pixels, SCENE)
    assert ("EXIF orientation applied" in picture.notes) == (orientation > 1)


def test_malformed_exif_does_not_matter():
    data = encode(SCENE, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert load_picture(data).pixels.shape == SCENE.shape


def test_grey_one_bit_palette_and_cmyk():
    grey = SCENE[..., 0]
    np.testing.assert_array_equal(load_picture(encode(grey, "PNG")).pixels[..., 2], grey)
    bits = Image.fromarray(grey).point(lambda v: 255 * (v > 127)).convert("1")
    np.testing.assert_array_equal(
        load_picture(encode(bits, "PNG")).pixels[..., 1], 255 * (grey > 127))
    palette = Image.fromarray(SCENE).quantize(64)
    np.testing.assert_array_equal(load_picture(encode(palette, "PNG")).pixels, SCENE)
    cmyk = load_picture(encode(Image.fromarray(SCENE).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.pixels.astype(int) - SCENE).mean() < 10
    assert "converted from CMYK" in cmyk.notes


def test_sixteen_bit_grey_keeps_the_high_byte():
    samples = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 40
    pixels = load_picture(encode(Image.fromarray(samples), "PNG")).pixels
    np.testing.assert_array_equal(pixels[..., 0], samples >> 8)


def test_sixteen_bit_colour_keeps_the_high_byte():
    samples = _RNG.integers(0, 2**16, (16, 24, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))
    data = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(load_picture(data).pixels, samples >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_content_shows_on_one_of_two_backgrounds(mode):
    """White ink at opacity 0.5 on nothing: invisible over white, plain over black."""
    rgba = np.full((16, 16, 4), 255, np.uint8)
    rgba[..., 3] = 0
    rgba[4:12, 4:12, 3] = 255
    image = Image.fromarray(rgba)
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = Image.fromarray(np.where(rgba[..., 3], 1, 0).astype(np.uint8), "P")
        image.putpalette([255, 255, 255] * 256)
        data = encode(image, "PNG", transparency=0)
    else:
        data = encode(image, "PNG")
    picture = load_picture(data)
    assert (picture.pixels == 255).all()
    black, = picture.alternates
    assert (black[4:12, 4:12] == 255).all() and black.sum() == 8 * 8 * 3 * 255
    assert "transparent: over white and over black" in picture.notes


def test_opacity_is_rounded_to_the_nearest():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = 200, 100
    picture = load_picture(encode(rgba, "PNG"))
    assert picture.pixels[0, 0, 0] == round(200 * 100 / 255 + 255 * 155 / 255)
    assert picture.alternates[0][0, 0, 0] == round(200 * 100 / 255)


def test_an_opaque_alpha_channel_is_no_transparency():
    rgba = np.dstack([SCENE, np.full(SCENE.shape[:2], 255, np.uint8)])
    picture = load_picture(encode(rgba, "PNG"))
    assert picture.alternates == ()
    np.testing.assert_array_equal(picture.pixels, SCENE)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_single_frame_flash_is_seen(kind):
    still, flash = SCENE, 255 - SCENE
    frames = [still] * 30
    frames[17] = flash
    # A pixel that blinks keeps encoders from merging the equal frames.
    frames = [frame.copy() for frame in frames]
    for i, frame in enumerate(frames):
        frame[0, 0] = SCENE[0, 0] if i in (0, 16, 17, 18) else frame[0, 0]
    picture = load_picture(animation(kind, frames))
    assert any(np.array_equal(frame.pixels, flash) or
               np.abs(frame.pixels[1:].astype(int) - flash[1:]).max() < 3
               for frame in picture.frames)


def test_frames_are_evenly_spaced_with_first_and_last():
    frames = [np.full((16, 16, 3), 5 * i, np.uint8) for i in range(40)]
    picture = load_picture(animation("PNG", frames), Limits(max_frames=4))
    assert [frame.index for frame in picture.frames] == [0, 13, 26, 39]
    assert [int(frame.pixels[0, 0, 0]) for frame in picture.frames] == [0, 65, 130, 195]
    assert picture.frame_count == 40
    assert "animation: 4 of 40 frames scored, 40 are distinct" in picture.notes


def test_a_picture_followed_by_a_page_is_just_the_picture():
    picture = load_picture(encode(SCENE, "PNG") + b"<html><script>alert(1)</script></html>")
    np.testing.assert_array_equal(picture.pixels, SCENE)
