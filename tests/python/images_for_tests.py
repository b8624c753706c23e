"""JPEG and PNG files of every kind, made here, and what Pillow makes of them."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

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


def jpeg(
    rng: np.random.Generator, mode: str, size: tuple[int, int] | None = None, **options: object
) -> bytes:
    height, width = size or rng.integers(1, 80, 2)
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
