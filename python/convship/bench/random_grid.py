"""Shapes that nobody chose: what an op is worth where nobody tuned it."""

from __future__ import annotations

from random import Random

from convship.bench.grid import Case

__all__ = ["random_cases"]

_KERNELS = (1, 2, 3, 3, 3, 3, 4, 5, 5, 7, 9, 11)
_SIDES = (7, 10, 14, 20, 28, 32, 45, 56, 64, 97, 112, 150, 224, 300)
_WIDTHS = (7, 12, 17, 28, 33, 64, 90, 128, 200)
# As many operations take a millisecond or so: less is overhead, more is a long wait.
_FLOPS = (2e5, 2.5e9)


def random_cases(seed: int, count: int = 48) -> list[Case]:
    """Draw shapes of all kinds: few to many channels, grouped, depthwise, strided, dilated.

    Args:
        seed: The same number draws the same shapes, everywhere.
        count: How many.

    Example:
        >>> [case.name for case in random_cases(1, 3)] == [c.name for c in random_cases(1, 3)]
        True
    """
    random = Random(seed)
    cases: list[Case] = []
    while len(cases) < count:
        case = _draw(random, len(cases) + 1)
        if case is not None:
            cases.append(case)
    return cases


def _channels(random: Random) -> tuple[str, int, int, int]:
    """Kind, input channels, output channels, groups."""
    kind = random.choice(("few", "few", "some", "some", "many", "many", "depthwise", "grouped"))
    if kind == "depthwise":
        channels = random.choice((16, 32, 48, 72, 144, 240))
        return kind, channels, channels, channels
    if kind == "grouped":
        groups = random.choice((2, 4, 8))
        return (
            kind,
            groups * random.choice((4, 8, 16, 24)),
            groups * random.choice((4, 8, 16, 32)),
            groups,
        )
    inputs, outputs = {
        "few": ((1, 2, 3, 3, 3, 4, 5, 6), (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96)),
        "some": ((8, 12, 16, 20, 24, 32, 40, 48), (8, 16, 24, 32, 40, 50, 64, 96)),
        "many": ((64, 80, 96, 128, 192, 256, 320), (32, 64, 72, 128, 192, 256, 384)),
    }[kind]
    return kind, random.choice(inputs), random.choice(outputs), 1


def _draw(random: Random, number: int) -> Case | None:
    """One shape, or None where what was drawn does not fit together."""
    kind, inputs, outputs, groups = _channels(random)
    rows = random.choice(_KERNELS)
    columns = rows if random.random() < 0.8 else random.choice((1, 3, 5, 7))
    stride = random.choice((1, 1, 1, 1, 2, 2, 3, 4))
    dilation = random.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3))
    padded = random.random() < 0.67
    height = random.choice(_SIDES)
    width = height if random.random() < 0.7 else random.choice(_WIDTHS)
    window = random.choice((2, 2, 2, 2, 3, 3, 4))
    step = window if random.random() < 0.6 else random.choice((1, 2))
    edge = random.choice((0, 0, 0, 1))
    case = Case(
        f"{kind}_{number}",
        (random.choice((1, 1, 1, 2, 4, 8)), inputs, height, width),
        (outputs, inputs // groups, rows, columns),
        stride=(stride, stride),
        padding=(rows // 2, columns // 2) if padded else (0, 0),
        dilation=(dilation, dilation),
        groups=groups,
        pool_size=(window, window),
        pool_stride=(step, step),
        pool_padding=(edge, edge),
    )
    fits = min(case.conv_size) >= window and _FLOPS[0] <= case.flops <= _FLOPS[1]
    return case if fits else None
