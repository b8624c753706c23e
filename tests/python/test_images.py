"""Decoded pixels are Pillow's, byte for byte; what is damaged is refused."""

import base64
import io
import itertools
import struct
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convship
from convship import _C

# Kinds that Pillow cannot write, 19 x 18 pixels, made with libjpeg.
JPEG_FIXTURES = {
    "4:4:0": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAASABMDARIAAhEBAxEB/8QAGQAAAgMBAAAAAAAAAAAAAAAA"
        "AAIEBQYD/8QAIhAAAAYCAQUBAAAAAAAAAAAAAAECAwQhBRMxESJBYaFR/8QAGAEAAwEBAAAAAAAAAAAAAAAAAgMF"
        "BAb/xAAhEQABAwMFAQEAAAAAAAAAAAABAAMEBRExAhMVITMSI//aAAwDAQACEQMRAD8ATPTDUrUz8HPDxVTXdjvH"
        "sAy05EP1I7CHkHIR2rXCk4KISE7XvofMSkw29TXPoOecbli0fopppzcwbwNipD2QbS6pJGXQjGdSl5xJLvusZOPm"
        "DolJL7rX5gYWhxJEUWqrwAVK15opSpcqfWXd35AJFE9EcXCsY6U6EUXH4Addqym6sr//2Q=="
    ),
    "4:1:1": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAASABMDAUEAAhEBAxEB/8QAGQAAAgMBAAAAAAAAAAAAAAAA"
        "AAUCAwQG/8QAIhAAAAYCAQUBAAAAAAAAAAAAAAECAwQhBRMxESJBYaFR/8QAFgEBAQEAAAAAAAAAAAAAAAAABAIF"
        "/8QAIxEAAQMDAgcAAAAAAAAAAAAAAgABAwQRQRITMlFScXKhsf/aAAwDAQACEQMRAD8AhnphqVqZ+C3BRCQna99G"
        "t7INpdUkjLoRgA6qYoxjccjdXu6Jnkw7D6SvDxVTXdjvHsbMxKTDb1Nc+glSl5xJLvusA0ApGnuPQ9kYxcqcebOX"
        "1dDiSIotVXgJcqfWXd35DGOlOhFFx+ADaLjm8koM91//2Q=="
    ),
    "4:1:0 progressive": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wgARCAASABMDAUIAAhEBAxEB/8QAGAABAQEBAQAAAAAAAAAAAAAA"
        "AAQCAwX/xAAWAQEBAQAAAAAAAAAAAAAAAAACAQT/2gAMAwEAAhADEAAAAc76pe0Qz0YqAa1//8QAHBAAAgICAwAA"
        "AAAAAAAAAAAAAQMAAhIyESEx/9oACAEBAAEFAn3iKwsHKa5l1sB2YrVu1fP/xAAZEQEAAgMAAAAAAAAAAAAAAAAB"
        "ABESIvD/2gAIAQMBAT8ByTc6oT//xAAbEQACAQUAAAAAAAAAAAAAAAAAAgMBMTJBcf/aAAgBAgEBPwGsbtjogu/T"
        "/8QAGBAAAwEBAAAAAAAAAAAAAAAAAAERECD/2gAIAQEABj8CiK8rIuf/xAAYEAEBAQEBAAAAAAAAAAAAAAABABEQ"
        "Uf/aAAgBAQABPyHZnEkiJYBgAt97oM3/2gAMAwEAAgADAAAAEL8P3//EABgRAQADAQAAAAAAAAAAAAAAAAEAITFx"
        "/9oACAEDAQE/EExo0xl6z//EABcRAQEBAQAAAAAAAAAAAAAAAAEhEHH/2gAIAQIBAT8QJBWHuJ//xAAcEAACAgMB"
        "AQAAAAAAAAAAAAAAASFBETFhsVH/2gAIAQEAAT8QZ4Qv2hBGsJlDelg+CBOwiUIih8zmbNDWvh//2Q=="
    ),
    "YCCK": (
        "/9j/7gAOQWRvYmUAZAAAAAAC/9sAQwANCQoLCggNCwoLDg4NDxMgFRMSEhMnHB4XIC4pMTAuKS0sMzpKPjM2Rjcs"
        "LUBXQUZMTlJTUjI+WmFaUGBKUVJP/9sAQwEODg4TERMmFRUmTzUtNU9PT09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09P/8AAFAgAEgATBAEiAAIRAQMRAQQiAP/EABkAAQADAQEAAAAAAAAAAAAA"
        "AAAEBQYCA//EACQQAAEDBAIBBQEAAAAAAAAAAAEAAgQDBREhEhMxFEFRYaEi/8QAFwEAAwEAAAAAAAAAAAAAAAAA"
        "AAMEBv/EACMRAAEEAAQHAAAAAAAAAAAAAAABAgQxAxEiMxIUFSEkNUH/2gAOBAEAAhEDEQQAAD8A6sMMNb21v1eV"
        "9ll7uqj+KTeJTYVLrpefpQ7PFdMqdtXx9ofrxEks20sHeFlKZ347QhSrC+4yfWtBIzlXMe/sgRfQuO8YVjaJ0ePa"
        "OmqRz442sHdYMiveO6mDw5ZUejb6jqTXEHJCLRudRpuLNfzpFR1CGvwZyuE/VnZa1rO+VVdXA1UOUWhgy6FKHSY8"
        "jk1uCizt2JMre9+6u7UMRNa17IimiescLXYMpcHuE/AcQM+AVqILGm35LQTjyQiKtkOd3v2fPyiIs6lCUozclzhI"
        "eA4jfyiIv//Z"
    ),
    "one scan per component": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAASABMDASEAAhEBAxEB/8QAGAABAAMBAAAAAAAAAAAAAAAA"
        "BQIDBAb/xAAiEAAABgIBBQEAAAAAAAAAAAAAAQIDBCEFEzERIkFhoVH/2gAIAQEAAD8AhnphqVqZ+C3BRCQna99G"
        "t7INpdUkjLoRgvDxVTXdjvHsbMxKTDb1Nc+gKlLziSXfdY6HEkRRaqvAFyp9Zd3fkIx0p0IouPwf/8QAFwEAAwEA"
        "AAAAAAAAAAAAAAAAAAMFBv/EACARAAIBAgcBAAAAAAAAAAAAAAABAwQxAhEUFSIjNUH/2gAIAQIRAD8AIOdC5XdE"
        "hVkmRXfVLpfjH7UkJqvTwmhdz//EABYBAQEBAAAAAAAAAAAAAAAAAAQDAP/EAB8RAAICAgEFAAAAAAAAAAAAAAEC"
        "AAMEETEFEiEkNP/aAAgBAxEAPwDZnsYiKvIlkygFAMj0767EfiCsrbuOo0+LtiI0J//Z"
    ),
    "coefficients left out": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//wgARCAASABMDAREAAhEBAxEB/8QAGAABAAMBAAAAAAAAAAAAAAAA"
        "BQIDBAb/2gAIAQEAAAAAhbrL2C9CKj//xAAYAQACAwAAAAAAAAAAAAAAAAAEBQIDBv/aAAgBAhAAAAAc9A6gRao1"
        "3//EABcBAQEBAQAAAAAAAAAAAAAAAAUEAgb/2gAIAQMQAAAAtESJ6UG3FX//2Q=="
    ),
    "arithmetic coding": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
        "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAASABMDASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIR"
        "AxEAPwD1qTFxVEUflI+ZNRiVcIywLwHhzgA8ZytuGbK02tiK4+K+SF07rjHwo+YoHPdiIxEJPR5B/YZlC6ySIj32"
        "9sM1tn8ux0RUOv8AQl+qzB7m/IsXC6MoIZhzcXCqgsQPVQXRgrCOyk5rHVeVGkZrlcam2UQVKtnSv/qWQ+74gP/Z"
    ),
}
REFUSED_FIXTURES = ("coefficients left out", "arithmetic coding")


def decoded_by_pillow(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Palette images with Transparency")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decoded_by_us(data: bytes) -> np.ndarray:
    tensor = _C.decode_image(data)
    assert tensor.dtype == torch.uint8
    return tensor.permute(1, 2, 0).numpy()


def assert_same_pixels(data: bytes, what: str) -> None:
    expected = decoded_by_pillow(data)
    got = decoded_by_us(data)
    assert got.shape == expected.shape, what
    assert np.array_equal(got, expected), what


def picture(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """Smooth, noisy or flat uint8 [H, W, channels]: they stress different parts of a codec."""
    y, x, c = np.ogrid[:height, :width, :channels]
    style = rng.integers(3)
    if style == 0:
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if style == 1:
        wave = 128 + 110 * np.sin(x * rng.uniform(0.02, 1) + c * 2) * np.cos(y * rng.uniform(0, 1))
        return wave.astype(np.uint8)
    flat = rng.integers(0, 256, channels, dtype=np.uint8)
    return np.broadcast_to(flat, (height, width, channels)).copy()


# --- JPEG ------------------------------------------------------------------


def jpeg(rng: np.random.Generator, mode: str, **options: object) -> bytes:
    height, width = rng.integers(1, 80, 2)
    pixels = picture(rng, height, width, len(Image.new(mode, (1, 1)).getbands()))
    image = Image.frombytes(mode, (int(width), int(height)), pixels.tobytes())
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def random_jpegs(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(seed)
    for i in range(count):
        mode = ("RGB", "RGB", "RGB", "L", "CMYK")[i % 5]
        options: dict[str, object] = {
            "quality": int(rng.integers(1, 101)),
            "progressive": bool(rng.integers(2)),
            "optimize": bool(rng.integers(2)),
        }
        if mode == "RGB":
            options |= {"keep_rgb": True} if i % 20 == 0 else {"subsampling": int(rng.integers(3))}
        if rng.integers(3) == 0:
            options["restart_marker_blocks"] = int(rng.integers(1, 9))
        yield f"#{i} {mode} {options}", jpeg(rng, mode, **options)


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

PNG_FORMATS = [  # colour type, bit depth
    *((0, d) for d in (1, 2, 4, 8, 16)),
    *((2, d) for d in (8, 16)),
    *((3, d) for d in (1, 2, 4, 8)),
    *((4, d) for d in (8, 16)),
    *((6, d) for d in (8, 16)),
]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def packed(row: np.ndarray, depth: int) -> bytes:
    """One row of samples [W, channels] as PNG stores it."""
    flat = row.reshape(-1)
    if depth == 16:
        return flat.astype(">u2").tobytes()
    bits = np.unpackbits(flat.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


def filtered(rows: list[bytes], pixel_bytes: int, rng: np.random.Generator) -> bytes:
    """Each row behind a random filter type, its bytes filtered accordingly."""
    out = bytearray()
    above = np.zeros(len(rows[0]) if rows else 0, np.int32)
    for row in rows:
        now = np.frombuffer(row, np.uint8).astype(np.int32)
        start = np.zeros(pixel_bytes, np.int32)
        left, corner = (np.concatenate([start, a])[: len(now)] for a in (now, above))
        kind = int(rng.integers(5))
        guess = left + above - corner
        distance = [abs(guess - left), abs(guess - above), abs(guess - corner)]
        paeth = np.where(
            (distance[0] <= distance[1]) & (distance[0] <= distance[2]),
            left,
            np.where(distance[1] <= distance[2], above, corner),
        )
        predicted = (0 * now, left, above, (left + above) // 2, paeth)[kind]
        out.append(kind)
        out += ((now - predicted) % 256).astype(np.uint8).tobytes()
        above = now
    return bytes(out)


def png(
    rng: np.random.Generator,
    colour: int,
    depth: int,
    interlace: int,
    size: tuple[int, int] | None = None,
    extra: bytes = b"",
    samples: np.ndarray | None = None,
) -> bytes:
    height, width = size or tuple(int(n) for n in rng.integers(1, 40, 2))
    if samples is None:
        samples = rng.integers(0, 1 << depth, (height, width, CHANNELS[colour]))
        if rng.integers(2):  # runs, so that the compressor has something to refer back to
            samples[height // 2 :] = samples[:1]
    passes = ADAM7 if interlace else ((0, 0, 1, 1),)
    stream = b""
    for x0, y0, dx, dy in passes:
        part = samples[y0::dy, x0::dx]
        if part.size:
            rows = [packed(row, depth) for row in part]
            stream += filtered(rows, max(1, CHANNELS[colour] * depth // 8), rng)
    data = zlib.compress(stream, int(rng.integers(10)))
    cut = int(rng.integers(len(data)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    palette = chunk(b"PLTE", rng.bytes(3 * (1 << depth))) if colour == 3 else b""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            palette,
            extra,
            chunk(b"IDAT", data[:cut]),
            chunk(b"IDAT"),
            chunk(b"IDAT", data[cut:]),
            chunk(b"IEND"),
        )
    )


def transparency(rng: np.random.Generator, colour: int, depth: int) -> bytes:
    if colour == 3:
        return chunk(b"tRNS", rng.bytes(int(rng.integers(1, (1 << depth) + 1))))
    values = rng.integers(0, 1 << depth, CHANNELS[colour])
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values.tolist()))


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


ANCILLARY = {
    "gAMA": chunk(b"gAMA", struct.pack(">I", 220000)),
    "gAMA of zero": chunk(b"gAMA", bytes(4)),
    "cHRM": chunk(b"cHRM", struct.pack(">8I", *range(8))),
    "sRGB": chunk(b"sRGB", b"\x02"),
    "iCCP": chunk(b"iCCP", b"name\0\0" + zlib.compress(b"not a profile")),
    "iCCP, not compressed": chunk(b"iCCP", b"name\0\0garbage"),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000))),
    "eXIf": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    "bKGD": chunk(b"bKGD", bytes(6)),
    "sBIT": chunk(b"sBIT", b"\5\6\5"),
    "private": chunk(b"prVt", b"anything"),
    "animation, default image apart": chunk(b"acTL", struct.pack(">II", 1, 0)),
}


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
