# ruff: noqa: N999 - the name that PyTorch's extensions have
"""The compiled extension. Each section belongs to one file of cpp/bindings."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import Parameter

from convship.model import Plan

# ops.cpp

class PackedConv: ...

class PackedCache:
    def __init__(
        self,
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
    ) -> None: ...
    def run(self, input: Tensor, parameters: dict[str, Parameter | None]) -> Tensor | None: ...
    def clear(self) -> None: ...

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
def conv_pool2d_prepack(
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
) -> PackedConv: ...
def conv_pool2d_packed(input: Tensor, packed: PackedConv) -> Tensor: ...
def time_conv_pool2d(packed: PackedConv, input: Tensor, seconds: float) -> tuple[Tensor, float]: ...
def packings() -> tuple[int, int]: ...
def build_info() -> dict[str, str]: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def set_isa(name: str) -> None: ...
def last_isa() -> str: ...
def last_family() -> str: ...
def fma_rate(seconds: float) -> float: ...
def default_accuracy() -> str: ...
def set_default_accuracy(name: str) -> None: ...

# images.cpp

def decode_image(data: bytes, subject: str = "image") -> Tensor: ...

# file.cpp

def read_extras(path: str | Path, public_key: str = "") -> tuple[bytes, bytes]: ...
def sign(data: bytes, private_key: str, name: str = "model") -> bytes: ...

# model.cpp

class Prediction:
    @property
    def label(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def probability(self) -> float: ...

class Check:
    @property
    def golden(self) -> int: ...
    @property
    def stage(self) -> str: ...
    @property
    def max_error(self) -> float: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def passed(self) -> bool: ...

class Model:
    @staticmethod
    def from_file(
        path: str | Path,
        *,
        backend: str = "convship",
        allow_plain: bool = False,
        threads: int | None = None,
        public_key: str = "",
    ) -> Model: ...
    @staticmethod
    def from_bytes(
        data: bytes,
        name: str = "model",
        *,
        backend: str = "convship",
        allow_plain: bool = False,
        threads: int | None = None,
        public_key: str = "",
    ) -> Model: ...
    @property
    def manifest(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...
    def predict_file(self, path: str | Path, top_k: int = 1) -> list[Prediction]: ...
    def predict_encoded(self, data: bytes, top_k: int = 1) -> list[Prediction]: ...
    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]: ...
    def plan(self, inputs: dict[str, Tensor]) -> Plan: ...
    def stages(self, data: bytes) -> dict[str, Tensor]: ...
    def selftest(self) -> list[Check]: ...
