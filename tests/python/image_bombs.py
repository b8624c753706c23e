"""Small files that ask for much: pixels, memory, passes, chunks."""

import io
import struct
import zlib

import numpy as np
from images_for_tests import chunk, jpeg
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_of(
    width: int,
    height: int,
    *,
    depth: int = 8,
    colour: int = 2,
    interlace: int = 0,
    before: bytes = b"",
    data: bytes | None = None,
    after: bytes = b"",
) -> bytes:
    """A PNG of zeros, if `data` does not say otherwise."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    if data is None:
        data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    parts = (SIGNATURE, chunk(b"IHDR", header), before, data, after, chunk(b"IEND"))
    return b"".join(parts)


def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed."""
    compressor = zlib.compressobj(9)
    parts = []
    while count > 0:
        parts.append(compressor.compress(bytes(min(count, 1 << 20))))
        count -= 1 << 20
    return b"".join([*parts, compressor.flush()])


def jpeg_of(width: int, height: int, progressive: bool, scans: int = 1) -> bytes:
    """The first scan of a small JPEG, `scans` times, under a header of another size."""
    data = jpeg(np.random.default_rng(0), "RGB", (16, 16), progressive=progressive)
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    size = struct.pack(">HH", height, width)
    data = data[: frame + 5] + size + data[frame + 9 :]
    first = data.index(b"\xff\xda")
    following = data.find(b"\xff\xc4", first)
    scan = data[first : following if following > 0 else len(data) - 2]
    return data[:first] + scan * scans + b"\xff\xd9"


def many_scans(count: int, width: int = 16, height: int = 16) -> bytes:
    """A progressive JPEG of gray pixels that sends its first coefficients, then nothing, `count`
    times."""
    image = Image.new("L", (width, height), 128)
    out = io.BytesIO()
    image.save(out, "JPEG", progressive=True)
    data = out.getvalue()
    # A scan of coefficients 1 to 5 whose blocks are all at their end.
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    end = min(at for at in (data.find(b"\xff\xc4", second), len(data) - 2) if at > 0)
    return data[:end] + data[second:end] * count + b"\xff\xd9"


def segments(marker: bytes, content: bytes, count: int) -> bytes:
    """A sound JPEG behind many segments."""
    data = jpeg(np.random.default_rng(0), "RGB", (16, 16))
    segment = b"\xff" + marker + struct.pack(">H", len(content) + 2) + content
    return data[:2] + segment * count + data[2:]


def bombs() -> dict[str, bytes]:
    """Thirty of them by name."""
    text = zeros(100 << 20)
    limit = 8192  # squared: 64 megapixels
    return {
        "PNG 50000 x 50000": png_of(50_000, 50_000),
        "PNG of 2^31 - 1": png_of(2**31 - 1, 2**31 - 1),
        "PNG of 2^32 - 1": png_of(2**32 - 1, 1),
        "PNG 16384 x 16384": png_of(16_384, 16_384),
        "PNG 16385 x 1": png_of(16_385, 1),
        "PNG 8192 x 8192 at the limit": png_of(
            limit, limit, colour=0, depth=1, data=chunk(b"IDAT", zeros((limit // 8 + 1) * limit))
        ),
        "PNG 8192 x 8192, without data": png_of(limit, limit),
        "PNG 8192 x 8192, interlaced": png_of(limit, limit, interlace=1),
        "PNG 8192 x 8192, 16 bits": png_of(limit, limit, depth=16, colour=6),
        "PNG 8192 x 8192, 16 bits, interlaced": png_of(
            limit, limit, depth=16, colour=6, interlace=1
        ),
        "PNG zTXt": png_of(8, 8, before=chunk(b"zTXt", b"Comment\0\0" + text)),
        "PNG iTXt": png_of(8, 8, before=chunk(b"iTXt", b"Comment\0\1\0\0\0" + text)),
        "PNG iCCP": png_of(8, 8, before=chunk(b"iCCP", b"name\0\0" + text)),
        "PNG zTXt behind": png_of(8, 8, after=chunk(b"zTXt", b"Comment\0\0" + text)),
        "PNG data that unpack to 100 MiB": png_of(8, 8, data=chunk(b"IDAT", text)),
        "PNG 100,000 texts": png_of(8, 8, before=chunk(b"tEXt", b"a\0b") * 100_000),
        "PNG 1,000,000 empty chunks": png_of(8, 8, before=chunk(b"prVt") * 1_000_000),
        "PNG 1,000,000 empty IDAT": png_of(8, 8, data=chunk(b"IDAT") * 1_000_000),
        "PNG 100,000 palettes": png_of(8, 8, before=chunk(b"PLTE", bytes(768)) * 100_000),
        "PNG chunk of 2^31 - 1": png_of(8, 8, before=struct.pack(">I", 2**31 - 1) + b"tEXt"),
        "PNG chunk of 2^32 - 1": png_of(8, 8, before=b"\xff\xff\xff\xfftEXt"),
        "JPEG 65500 x 65500": jpeg_of(65_500, 65_500, progressive=False),
        "JPEG 65500 x 65500, progressive": jpeg_of(65_500, 65_500, progressive=True),
        "JPEG 16385 x 1": jpeg_of(16_385, 1, progressive=False),
        "JPEG 8192 x 8192, nearly no data": jpeg_of(limit, limit, progressive=False),
        "JPEG 8192 x 8192, progressive": jpeg_of(limit, limit, progressive=True),
        "JPEG 6000 x 6000, 90 scans": jpeg_of(6000, 6000, progressive=True, scans=90),
        "JPEG 1,000 scans": many_scans(1000),
        "JPEG 1,000 scans of 4000 x 4000": many_scans(1000, 4000, 4000),
        "JPEG 1,000 comments": segments(b"\xfe", bytes(65_000), 1000),
        "JPEG 1,000 EXIF": segments(b"\xe1", b"Exif\0\0" + bytes(60_000), 1000),
        "JPEG 10,000 tables": segments(b"\xdb", bytes(1) + b"\1" * 64, 10_000),
    }
