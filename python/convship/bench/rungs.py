"""The rungs of the ladder by name: from eager Python to our kernels in a native program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convship.bench.catalogue import EngineSpec, choose_specs
from convship.bench.settings import Settings

__all__ = ["RUNGS", "RungSpec", "choose_rungs"]


@dataclass(frozen=True)
class RungSpec(EngineSpec):
    """One rung.

    Attributes:
        module: Whether it needs the nn.Module, which a shipped file does not hold.
        onnx: Whether it reads the network as ONNX.
        native: Whether its process is convship-run.
        package: Whether it reads .pt2 files, and whether it reads others; None: it reads both.
    """

    module: bool = False
    onnx: bool = False
    native: bool = False
    package: bool | None = None


_TORCH = "convship.bench.torch_rungs:"


def _native(name: str, kind: str, backend: str, accuracy: str) -> RungSpec:
    return RungSpec(
        name,
        kind,  # type: ignore[arg-type]
        "convship-run",
        {"backend": backend},
        group="native",
        environment={"CONVSHIP_ACCURACY": accuracy},
        native=True,
    )


RUNGS = [
    RungSpec("python eager", "stock", _TORCH + "Eager", group="python", module=True),
    RungSpec("python compile", "stock", _TORCH + "Compiled", group="python", module=True),
    RungSpec(
        "python compile channels_last",
        "stock",
        _TORCH + "Compiled",
        {"channels_last": True},
        group="python",
        module=True,
    ),
    RungSpec("python torchscript", "stock", _TORCH + "Script", group="python", package=False),
    RungSpec(
        "python torchscript frozen",
        "stock",
        _TORCH + "Script",
        {"prepare": "frozen"},
        group="python",
        package=False,
    ),
    RungSpec(
        "python torchscript channels_last",
        "stock",
        _TORCH + "Script",
        {"prepare": "frozen", "channels_last": True},
        group="python",
        package=False,
    ),
    RungSpec(
        "python torchscript optimized",
        "stock",
        _TORCH + "Script",
        {"prepare": "optimized"},
        group="python",
        package=False,
    ),
    RungSpec("python aotinductor", "stock", _TORCH + "Package", group="python", package=True),
    _native("native libtorch", "stock", "libtorch", "fast"),
    RungSpec(
        "onnxruntime",
        "peer",
        "convship.bench.onnxruntime_engine:OnnxRuntimeNetwork",
        packages=("onnx", "onnxruntime"),
        onnx=True,
        package=False,
    ),
    RungSpec(
        "openvino",
        "peer",
        "convship.bench.openvino_engine:OpenVinoNetwork",
        packages=("onnx", "openvino"),
        onnx=True,
        package=False,
    ),
    RungSpec("python convship", "ours", "convship.bench.convship_rung:Loaded", group="convship"),
    _native("native direct", "ours", "convship", "direct"),
    _native("native fast", "ours", "convship", "fast"),
]


def choose_rungs(
    names: Sequence[str] | None, has_module: bool, package: bool = False
) -> tuple[list[RungSpec], dict[str, str]]:
    """Return the rungs that take part, and why others do not; see `choose_specs`.

    Example:
        >>> chosen, left_out = choose_rungs(["python eager", "native"], has_module=False)
        >>> [rung.name for rung in chosen]
        ['native libtorch', 'native direct', 'native fast']
        >>> left_out["python eager"].split(":")[0]
        'a file holds no nn.Module'
    """

    def obstacle(rung: RungSpec) -> str:
        if rung.module and not has_module:
            return (
                "a file holds no nn.Module: give the run's folder or a network's name; "
                "python torchscript comes closest"
            )
        if rung.package is not None and rung.package != package:
            return "reads .pt2 files" if rung.package else "a .pt2 file holds native code only"
        if rung.native:
            # Here, not above: workers read this file, and those of the peers must not load torch.
            from convship.verify import native_program

            try:
                native_program()
            except FileNotFoundError as error:
                return str(error)
        return rung.obstacle(Settings())

    return choose_specs(RUNGS, names, obstacle)
