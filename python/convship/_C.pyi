"""The compiled extension. Each section belongs to one file of cpp/bindings."""

from collections.abc import Sequence

from torch import Tensor

# ops.cpp

def conv_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "relu",
    pool_size: int | Sequence[int] = 2,
    pool_stride: int | Sequence[int] | None = None,
    pool_padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    accuracy: str = "default",
) -> Tensor: ...
def build_info() -> dict[str, str]: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def set_isa(name: str) -> None: ...
