"""Decoded pixels are Pillow's, byte for byte; what is damaged is refused."""

import base64
import io
import itertools
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from images_for_tests import (
    ANCILLARY,
    JPEG_FIXTURES,
    PNG_FORMATS,
    REFUSED_FIXTURES,
    assert_same_pixels,
    chunk,
    decoded_by_pillow,
    decoded_by_us,
    jpeg,
    picture,
    png,
    random_jpegs,
    transparency,
)
from PIL import Image

import convship
from convship import _C

# --- JPEG ------------------------------------------------------------------


def test_jpeg_equals_pillow() -> None:
    for what, data in random_jpegs(300, seed=1):
        assert_same_pixels(data, what)


@pytest.mark.parametrize("name", sorted(JPEG_FIXTURES.keys() - REFUSED_FIXTURES))
def test_rare_jpeg_equals_pillow(name: str) -> None:
    assert_same_pixels(base64.b64decode(JPEG_FIXTURES[name]), name)


@pytest.mark.parametrize("name", REFUSED_FIXTURES)
def test_jpeg_that_could_differ_fails(name: str) -> None:
    with pytest.raises(convship.ImageError, match="this kind of JPEG is not supported"):
        _C.decode_image(base64.b64decode(JPEG_FIXTURES[name]))


@pytest.mark.parametrize("orientation", range(9))
def test_exif_orientation_is_not_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(np.random.default_rng(orientation), "RGB", exif=exif)
    assert_same_pixels(data, f"orientation {orientation}")


def test_bytes_after_the_image_are_ignored() -> None:
    rng = np.random.default_rng(2)
    for tail in (b"\0", b"trailing text", rng.bytes(5000), jpeg(rng, "RGB"), png(rng, 2, 8, 0)):
        assert_same_pixels(jpeg(rng, "RGB") + tail, "JPEG")
        assert_same_pixels(png(rng, 2, 8, 0) + tail, "PNG")


def test_bytes_between_segments_are_skipped_as_pillow_does() -> None:
    """Well-known photo collections hold JPEGs with such bytes before the end-of-image marker."""
    rng = np.random.default_rng(5)
    for _, data in random_jpegs(20, seed=5):
        for marker in (b"\xff\xd9", b"\xff\xda", b"\xff\xc4"):
            at = data.rfind(marker)
            junk = rng.integers(0, 255, 214, dtype=np.uint8).tobytes()  # no 0xff, hence no marker
            assert_same_pixels(data[:at] + junk + data[at:], f"junk before {marker.hex()}")


def test_real_photos_equal_pillow() -> None:
    archive = Path(__file__).parents[3] / "shared/data/cifar10-imagefolder.tar.gz"
    if not archive.is_file():
        pytest.skip("the CIFAR-10 archive is not on this machine")
    with tarfile.open(archive) as tar:
        members = (m for m in tar if m.name.endswith(".jpg"))
        for member in itertools.islice(members, 500):
            file = tar.extractfile(member)
            assert file is not None
            assert_same_pixels(file.read(), member.name)


# --- PNG -------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "depth"), PNG_FORMATS)
@pytest.mark.parametrize("interlace", [0, 1])
def test_png_equals_pillow(colour: int, depth: int, interlace: int) -> None:
    rng = np.random.default_rng([colour, depth, interlace])
    for i in range(15):
        extra = transparency(rng, colour, depth) if colour in (0, 2, 3) and i % 3 == 0 else b""
        assert_same_pixels(png(rng, colour, depth, interlace, extra=extra), f"#{i}")


@pytest.mark.parametrize("interlace", [0, 1])
def test_small_png_sizes_equal_pillow(interlace: int) -> None:
    rng = np.random.default_rng(interlace)
    for size in itertools.product(range(1, 10), repeat=2):
        assert_same_pixels(png(rng, 0, 1, interlace, size), str(size))
        assert_same_pixels(png(rng, 2, 8, interlace, size), str(size))


def test_all_16_bit_gray_values_equal_pillow() -> None:
    values = np.arange(65536).reshape(256, 256, 1)
    data = png(np.random.default_rng(0), 0, 16, 0, (256, 256), samples=values)
    assert_same_pixels(data, "16-bit gray")


def test_short_palette_equals_pillow() -> None:
    """An index beyond the palette is black."""
    rng = np.random.default_rng(0)
    data = png(rng, 3, 8, 0)
    start = data.index(b"PLTE") - 4
    short = data[:start] + chunk(b"PLTE", rng.bytes(30)) + data[start + 12 + 768 :]
    assert_same_pixels(short, "10 colours")


@pytest.mark.parametrize("name", ANCILLARY)
def test_png_ancillary_chunks_change_nothing(name: str) -> None:
    rng = np.random.default_rng(3)
    assert_same_pixels(png(rng, 2, 8, 0, extra=ANCILLARY[name]), name)


def test_animated_png_gives_first_frame() -> None:
    rng = np.random.default_rng(4)
    out = io.BytesIO()
    frames = [Image.fromarray(picture(rng, 9, 11, 3)) for _ in range(3)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    assert b"fcTL" in out.getvalue()
    assert_same_pixels(out.getvalue(), "APNG")


# --- What is refused -------------------------------------------------------


def test_truncated_image_fails() -> None:
    rng = np.random.default_rng(5)
    sources = [jpeg(rng, "RGB"), jpeg(rng, "RGB", progressive=True), png(rng, 6, 8, 1)]
    for data in sources:
        for length in range(len(data)):
            with pytest.raises(convship.ImageError):
                _C.decode_image(data[:length])


def test_flipped_bit_never_gives_other_pixels_than_pillow() -> None:
    rng = np.random.default_rng(6)
    sources = [jpeg(rng, "RGB"), jpeg(rng, "L", progressive=True), png(rng, 3, 4, 0)]
    for _ in range(1500):
        data = bytearray(sources[rng.integers(len(sources))])
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            got = decoded_by_us(bytes(data))
        except convship.ImageError:
            continue
        try:
            expected = decoded_by_pillow(bytes(data))
        except Exception:  # of many types; where Pillow refuses there is nothing to equal
            continue
        assert np.array_equal(got, expected)


def test_png_bit_flip_after_the_header_fails() -> None:
    data = png(np.random.default_rng(7), 2, 8, 0, (5, 5))
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(convship.ImageError):
            _C.decode_image(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(20), r"not a JPEG or PNG image \(looks like GIF\); convert it first"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "looks like WebP"),
        (b"<!DOCTYPE html><html>", "looks like HTML"),
        (b"\x00\x01\x02\x03\x04", "begins with bytes 00 01 02 03"),
        (b"\xff\xd8\xff", "the JPEG data is damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n", "the PNG data is damaged or truncated"),
    ],
)
def test_what_is_no_image_fails(data: bytes, message: str) -> None:
    with pytest.raises(convship.ImageError, match=message):
        _C.decode_image(data)


def test_huge_dimensions_fail_before_memory_is_taken() -> None:
    data = png(np.random.default_rng(8), 0, 8, 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 0, 0, 0, 0))
    bomb = data[:8] + header + data[33:]
    with pytest.raises(convship.ImageError, match="at most 16384 pixels, got 50000 x 50000"):
        _C.decode_image(bomb)
