"""What one benchmark run is: passed to every worker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTYPES = ("float32", "bfloat16")
LAYOUTS = ("nchw", "channels_last")

# The names that others' libraries have for our instruction sets; the last is the width of
# torch.compile's vectors in bits, where 1 means none.
_TORCH_ISAS = {
    "scalar": ("default", "SSE41", 1),
    "baseline": ("default", "SSE41", 1),
    "avx2": ("avx2", "AVX2", 256),
    "avx512": ("avx512", "AVX512_CORE", 512),
    "avx512_bf16": ("avx512", "AVX512_CORE_BF16", 512),
    "amx": ("avx512", "AVX512_CORE_AMX", 512),
}


@dataclass(frozen=True)
class Settings:
    """How the op is computed, by every engine alike.

    Attributes:
        threads: Threads per call, each on a core of its own.
        dtype: "float32" or "bfloat16", of inputs, weights and results.
        layout: Memory order of inputs and results.
        isa: Instruction set forced on torch and convship; None: each engine's best.
        train: Whether a call is forward and backward together.
    """

    threads: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    layout: Literal["nchw", "channels_last"] = "nchw"
    isa: str | None = None
    train: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("layout", self.layout, LAYOUTS),
        ):
            if value not in allowed:
                msg = f"bench: {name} must be one of {', '.join(allowed)}, got '{value}'"
                raise ValueError(msg)
        if self.threads < 1:
            msg = f"bench: threads must be at least 1, got {self.threads}"
            raise ValueError(msg)

    @property
    def compile_vector_bits(self) -> int | None:
        """Width of vectors that torch.compile may use; None: its own choice."""
        return _TORCH_ISAS[self.isa][2] if self.isa in _TORCH_ISAS else None

    def environment(self) -> dict[str, str]:
        """Return the variables that libraries read once, while they are imported."""
        variables = {
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            # No pool of compiler processes that would run beside the measurement.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        if self.isa in _TORCH_ISAS:
            aten, onednn, _ = _TORCH_ISAS[self.isa]
            variables |= {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn}
        return variables
