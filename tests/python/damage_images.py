"""A program: many thousand damaged images, bombs, and failing decodes, in this one process.

    python damage_images.py --count 20000 --seed 1

Whatever is decoded must have Pillow's pixels, whatever is not must be an ImageError; nothing may
take more memory than the limits say, or leave memory behind. Prints what happened as JSON.
"""

import argparse
import base64
import collections
import io
import json
import resource
import struct
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from image_bombs import bombs
from images_for_tests import (
    ANCILLARY,
    JPEG_FIXTURES,
    PNG_FORMATS,
    chunk,
    decoded_by_pillow,
    decoded_by_us,
    jpeg,
    png,
    transparency,
)
from PIL import Image

import convship

MEMORY_LIMIT_MIB = 256  # of convship's Limits; the result and the decoder
ALLOWANCE_MIB = 64


def corpus(seed: int) -> dict[str, bytes]:
    """Sound images of every kind that is read, and of some that are not, 100 to 1,500 bytes."""
    rng = np.random.default_rng(seed)
    images = {f"JPEG {name}": base64.b64decode(text) for name, text in JPEG_FIXTURES.items()}
    size = (9, 11)
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            for restart in (0, 2):
                images[f"JPEG {mode} {progressive} {restart}"] = jpeg(
                    rng,
                    mode,
                    size,
                    quality=40,
                    progressive=progressive,
                    restart_marker_blocks=restart,
                )
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        images[f"JPEG orientation {orientation}"] = jpeg(rng, "L", size, exif=exif)
    images["JPEG corrupt EXIF"] = jpeg(rng, "L", size, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1")
    for colour, depth in PNG_FORMATS:
        for interlace in (0, 1):
            extra = transparency(rng, colour, depth) if colour in (0, 2, 3) else b""
            data = png(rng, colour, depth, interlace, (5, 7), extra=extra)
            images[f"PNG {colour} {depth} {interlace}"] = data
    for name in ("gAMA", "iCCP", "eXIf"):
        images[f"PNG {name}"] = png(rng, 2, 8, 0, (5, 7), extra=ANCILLARY[name])
    out = io.BytesIO()
    frames = [Image.new("RGB", (7, 5), (i, 100, 200)) for i in range(2)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    images["APNG"] = out.getvalue()
    images["polyglot"] = images["JPEG L False 0"] + images["PNG 2 8 0"]
    return images


def damaged(images: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Cut at every byte, one image after the other, for half of `count`; then flipped bits."""
    rng = np.random.default_rng(seed)
    names = list(images)
    rng.shuffle(names)
    # The polyglot is sound when cut behind its first image.
    cuts = [(name, n) for name in names if name != "polyglot" for n in range(len(images[name]))]
    cuts = cuts[: count * 2 // 3]
    for name, length in cuts:
        yield f"cut at {length}: {name}", images[name][:length]
    for _ in range(count - len(cuts)):
        name = names[rng.integers(len(names))]
        data = bytearray(images[name])
        for _ in range(int(rng.integers(1, 4))):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        if data[:4] == b"\x89PNG" and rng.integers(2):
            data = bytearray(with_right_checksums(bytes(data)))
        yield f"flipped: {name}", bytes(data)


def with_right_checksums(data: bytes) -> bytes:
    """Damage gets past the checksums, to the code behind them."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out + data[at:]


def judge(what: str, data: bytes, counts: collections.Counter[str]) -> None:
    try:
        got = decoded_by_us(data)
    except convship.ImageError as error:
        kind = "damaged" if "damaged or truncated" in str(error) else "other error"
        counts[f"{what.split(' ', 1)[0].rstrip(':')}: {kind}"] += 1
        return
    if what.startswith("cut"):
        raise AssertionError(f"{what}: decoded")
    try:
        expected = decoded_by_pillow(data)
    except Exception:  # of many types; where Pillow refuses there is nothing to equal
        counts["flipped: decoded, Pillow refuses"] += 1
        return
    if not np.array_equal(got, expected):
        raise AssertionError(f"{what}: other pixels than Pillow's")
    counts["flipped: as Pillow"] += 1


def status_kib(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise KeyError(key)


def explode(counts: collections.Counter[str]) -> float:
    """Decode every bomb; return the most memory that one took, in MiB."""
    most = 0.0
    for name, data in bombs().items():
        before = status_kib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        try:
            decoded_by_us(data)
            counts["bomb: decoded within the limits"] += 1
        except convship.ImageError:
            counts["bomb: refused"] += 1
        took = (status_kib("VmHWM") - before) / 1024
        # The tensor that Python gets is a copy of the result.
        result = 192 if name.endswith("at the limit") else 0
        assert took <= MEMORY_LIMIT_MIB + ALLOWANCE_MIB + result, f"{name}: {took:.0f} MiB"
        most = max(most, took)
    return most


def leak(images: dict[str, bytes], count: int) -> int:
    """Fail `count` decodes; return by how many KiB memory grew after the first tenth."""
    failing = []
    for data in images.values():
        failing += [data[: len(data) * part // 8] for part in range(1, 8)]
    failing = [data for data in failing if not decodes(data)]
    begin = 0
    for index in range(count):
        decodes(failing[index % len(failing)])
        if index == count // 10:
            begin = status_kib("VmRSS")
    return status_kib("VmRSS") - begin


def decodes(data: bytes) -> bool:
    try:
        decoded_by_us(data)
    except convship.ImageError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, about the damage
    # A decoder that hangs ends by a signal instead of never.
    seconds = 60 + arguments.count // 100
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    counts: collections.Counter[str] = collections.Counter()
    images = corpus(arguments.seed)
    for what, data in damaged(images, arguments.count, arguments.seed):
        judge(what, data, counts)
    grown = leak(images, arguments.count)
    most = explode(counts)
    json.dump({"counts": counts, "bomb_mib": most, "leaked_kib": grown}, sys.stdout)


if __name__ == "__main__":
    main()
