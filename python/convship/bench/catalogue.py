"""The engines by name: which there are, which fit a run, and why others do not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from convship.bench.settings import DTYPES, LAYOUTS, Settings

__all__ = ["ENGINES", "EngineSpec", "choose_engines", "choose_specs"]

_EXTRA = "pip install 'convship[bench]'"


@dataclass(frozen=True)
class EngineSpec:
    """One engine: how a worker makes it, and what it can do.

    Attributes:
        name: What the tables call it.
        kind: "ours" is compared with every "peer"; "stock" is LibTorch without us.
        factory: "module:class" of an `Engine`, imported in the worker process only.
        options: Further arguments of the class.
        group: A second name, which engines may share.
        packages: Modules that must be installed.
        helper: Function of the compiled library that must exist.
        dtypes: What it computes in.
        layouts: Orders of memory it takes.
        obeys_isa: Whether an instruction set can be forced on it.
        trains: Whether it is measured forward and backward.
        environment: Variables of its process.
    """

    name: str
    kind: Literal["ours", "peer", "stock"]
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    packages: tuple[str, ...] = ()
    helper: str = ""
    dtypes: tuple[str, ...] = DTYPES
    layouts: tuple[str, ...] = LAYOUTS
    obeys_isa: bool = True
    trains: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def obstacle(self, settings: Settings) -> str:
        """Return in a few words why it cannot take part; empty where it can."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed: {_EXTRA}"
        # Here, not above: workers read this file, and those of the peers must not load torch.
        from convship import _library

        obstacles = {
            "is not measured in training": settings.train and not self.trains,
            "has no convolution in bfloat16": settings.dtype not in self.dtypes,
            "takes NCHW only": settings.layout not in self.layouts,
            "cannot be held to an instruction set": settings.isa is not None and not self.obeys_isa,
            f"this build has no _C.{self.helper}": self.helper != ""
            and not hasattr(_library.load(), self.helper),
        }
        return next((reason for reason, applies in obstacles.items() if applies), "")


Spec = TypeVar("Spec", bound=EngineSpec)

_TORCH = "convship.bench.torch_engines:"
_OURS = "convship.bench.convship_engines:"


def _ours(group: str, factory: str, **more: Any) -> list[EngineSpec]:
    return [
        EngineSpec(
            f"{group} {accuracy}",
            "ours",
            _OURS + factory,
            {"accuracy": accuracy},
            group=group,
            # Whatever requires grad is summed directly, so "fast" would be the same twice.
            trains=accuracy == "direct" and "helper" not in more,
            **more,
        )
        for accuracy in ("direct", "fast")
    ]


ENGINES = [
    EngineSpec("torch eager", "peer", _TORCH + "Unfused", {"channels_last": False}, trains=True),
    EngineSpec(
        "torch channels_last", "peer", _TORCH + "Unfused", {"channels_last": True}, trains=True
    ),
    EngineSpec("torch compile", "peer", _TORCH + "Compiled", {"channels_last": False}),
    # Left to itself the compiler does not choose this layout, often the faster one.
    EngineSpec("torch compile channels_last", "peer", _TORCH + "Compiled", {"channels_last": True}),
    EngineSpec(
        "onnxruntime",
        "peer",
        "convship.bench.onnxruntime_engine:OnnxRuntime",
        packages=("onnx", "onnxruntime"),
        dtypes=("float32",),
        layouts=("nchw",),
        obeys_isa=False,
    ),
    EngineSpec(
        "openvino",
        "peer",
        "convship.bench.openvino_engine:OpenVino",
        packages=("onnx", "openvino"),
        obeys_isa=False,
    ),
    *_ours("convship", "Module"),
    *_ours("convship function", "Function"),
    *_ours("convship native", "Native", helper="time_conv_pool2d"),
]


def choose_engines(
    names: Sequence[str] | None, settings: Settings
) -> tuple[list[EngineSpec], dict[str, str]]:
    """Return the engines that take part, and why others do not; see `choose_specs`.

    Example:
        >>> chosen, left_out = choose_engines(["torch eager", "convship"], Settings())
        >>> [engine.name for engine in chosen]
        ['torch eager', 'convship direct', 'convship fast']
    """
    return choose_specs(ENGINES, names, lambda engine: engine.obstacle(settings))


def choose_specs(
    specs: Sequence[Spec], names: Sequence[str] | None, obstacle: Callable[[Spec], str]
) -> tuple[list[Spec], dict[str, str]]:
    """Return those that take part, and why others do not.

    Args:
        specs: All there are.
        names: Names or groups; None for all.
        obstacle: Says in a few words why one cannot take part; empty where it can.

    Raises:
        ValueError: A name is unknown, or nothing is left.

    Example:
        >>> specs = [EngineSpec("a", "peer", ""), EngineSpec("b", "peer", "")]
        >>> chosen, left_out = choose_specs(specs, None, lambda spec: "no" * (spec.name == "b"))
        >>> [spec.name for spec in chosen], left_out
        (['a'], {'b': 'no'})
    """
    known = dict.fromkeys(name for spec in specs for name in (spec.group, spec.name) if name)
    for name in names or ():
        if name not in known:
            msg = f"bench: unknown engine '{name}'; known: {', '.join(known)}"
            raise ValueError(msg)
    wanted = [spec for spec in specs if names is None or {spec.name, spec.group} & set(names)]
    left_out = {spec.name: obstacle(spec) for spec in wanted}
    left_out = {name: reason for name, reason in left_out.items() if reason}
    chosen = [spec for spec in wanted if spec.name not in left_out]
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        msg = f"bench: no engine is left: {reasons}"
        raise ValueError(msg)
    return chosen, left_out
