"""Shapes to measure on: read from JSON, checked, filled with reproducible numbers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRIDS", "NOTHING", "Case", "choose_cases", "load_grid"]

GRIDS = ("peers", "odd")
_PAIRS = ("stride", "padding", "dilation", "pool_size", "pool_stride", "pool_padding")

Floats = NDArray[np.float32]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One shape: max_pool2d(relu(conv2d(input, weight, bias))).

    Attributes:
        name: What the tables call it.
        input: [N, C_in, H, W].
        weight: [C_out, C_in / groups, K_h, K_w].

    The other attributes are the arguments of `convship.conv_pool2d`.

    Example:
        >>> Case("a", (1, 3, 32, 32), (6, 3, 5, 5)).flops
        705600
    """

    name: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pool_size: Pair = (2, 2)
    pool_stride: Pair = (2, 2)
    pool_padding: Pair = (0, 0)

    @property
    def conv_size(self) -> Pair:
        """Height and width of the convolution's result."""
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                self.input[2:],
                self.weight[2:],
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )
        return height, width

    @property
    def output(self) -> tuple[int, ...]:
        """Shape [N, C_out, P, Q] of the pooled result."""
        pooled = (
            (size + 2 * padding - window) // stride + 1
            for size, window, stride, padding in zip(
                self.conv_size, self.pool_size, self.pool_stride, self.pool_padding, strict=True
            )
        )
        return self.input[0], self.weight[0], *pooled

    @property
    def flops(self) -> int:
        """Multiplications and additions of the whole convolution, summed directly."""
        height, width = self.conv_size
        return 2 * self.input[0] * height * width * int(np.prod(self.weight))

    def arrays(self, dtype: str = "float32") -> tuple[Floats, Floats, Floats]:
        """Return input, weight and bias: the same numbers in every process.

        For "bfloat16" they are float32 numbers that bfloat16 holds exactly.
        """
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        fan_in = int(np.prod(self.weight[1:]))
        image = random.standard_normal(self.input, np.float32)
        weight = random.standard_normal(self.weight, np.float32) / np.float32(fan_in**0.5)
        bias = random.standard_normal(self.weight[0], np.float32) / np.float32(4)
        if dtype == "bfloat16":
            return _cut(image), _cut(weight), _cut(bias)
        return image, weight, bias


# The op with nothing to do: what remains is what a call costs.
NOTHING = Case("nothing", (1, 1, 1, 1), (1, 1, 1, 1), pool_size=(1, 1), pool_stride=(1, 1))


def load_grid(grid: str | Path) -> list[Case]:
    """Return a grid: "peers", "odd", "random" or "random:SEED", or a JSON file's "cases".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The name is unknown, or the file does not hold valid shapes.

    Example:
        >>> [case.name for case in load_grid("peers")][:2]
        ['lenet1', 'lenet2']
    """
    name, _, seed = str(grid).partition(":")
    if name == "random":
        from convship.bench.random_grid import random_cases

        if seed and not seed.isdecimal():
            msg = f"bench: random:SEED takes a number, got '{seed}'"
            raise ValueError(msg)
        return random_cases(int(seed or 0))
    if str(grid) in GRIDS:
        path = Path(__file__).parent / "grids" / f"{grid}.json"
    elif str(grid).endswith(".json"):
        path = Path(grid)
    else:
        msg = (
            f"bench: unknown grid '{grid}'; known: {', '.join(GRIDS)}, random, or a file NAME.json"
        )
        raise ValueError(msg)
    try:
        cases = [_case(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["cases"]]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: grid does not exist") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path}: no valid grid: {error}"
        raise ValueError(msg) from error
    names = [case.name for case in cases]
    if not cases or len(set(names)) != len(names):
        msg = f"{path}: no valid grid: names must differ and there must be one, got {names}"
        raise ValueError(msg)
    return cases


def choose_cases(cases: Sequence[Case], names: Sequence[str] | None) -> list[Case]:
    """Return the cases of these names in the grid's order; all where `names` is None.

    Raises:
        ValueError: A name is unknown; the message lists those that are not.

    Example:
        >>> [case.name for case in choose_cases(load_grid("peers"), ["alexnet2", "lenet2"])]
        ['lenet2', 'alexnet2']
    """
    known = [case.name for case in cases]
    for name in names or ():
        if name not in known:
            msg = f"bench: unknown shape '{name}'; known: {', '.join(known)}"
            raise ValueError(msg)
    return [case for case in cases if names is None or case.name in names]


def _case(entry: dict[str, Any]) -> Case:
    allowed = [field.name for field in fields(Case)]
    for key in entry:
        if key not in allowed:
            msg = f"unknown key '{key}' in {entry.get('name')}; known: {', '.join(allowed)}"
            raise ValueError(msg)
    entry = {"pool_stride": entry.get("pool_size", 2), **entry}
    values: dict[str, Any] = {key: _pair(entry.pop(key)) for key in _PAIRS if key in entry}
    case = Case(
        str(entry["name"]),
        _sizes(entry["input"]),
        _sizes(entry["weight"]),
        groups=int(entry.get("groups", 1)),
        **values,
    )
    channels = case.weight[1] * case.groups
    if case.input[1] != channels or case.weight[0] % case.groups or min(case.output) < 1:
        msg = f"{case.name}: input, weight, groups and window do not fit together"
        raise ValueError(msg)
    return case


def _sizes(value: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in value)
    if len(sizes) != 4 or min(sizes) < 1:
        msg = f"input and weight must be four sizes, got {value}"
        raise ValueError(msg)
    return sizes


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


def _cut(values: Floats) -> Floats:
    """Drop the 16 bits that bfloat16 does not have."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
