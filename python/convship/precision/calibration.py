"""Which levels the integers of a layer stand for: what torch.ao's observers find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import HistogramObserver, PerChannelMinMaxObserver

from convship.errors import ExportError
from convship.golden import Golden, run_network

# The least step. The observers' own, 1.2e-7, is too coarse for small numbers.
_TINY = torch.finfo(torch.float32).tiny


def observe(
    network: nn.Module, layers: Mapping[str, nn.Module], calibration: Sequence[Golden]
) -> dict[str, tuple[Tensor, float, int]]:
    """Return, for each layer that an input reaches, how its numbers become levels.

    Returns:
        By name: the step between levels of the weight for each output channel, float32 [out], so
        that the largest is level 127; the step of the input, and the input's level of 0.
    """
    inputs: dict[str, HistogramObserver] = {}

    def watch(name: str) -> Callable[..., None]:
        def see(_: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            value = arguments[0] if arguments else named["input"]
            if not bool(value.isfinite().all()):
                raise ExportError(
                    f"export_model: calibration must give finite numbers, got NaN or infinity "
                    f"before layer '{name}'"
                )
            if value.numel() > 0:
                observer = inputs.setdefault(name, HistogramObserver(dtype=torch.quint8, eps=_TINY))
                observer(value.detach())

        return see

    hooks = [
        layer.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        for golden in calibration:
            run_network(network, golden.inputs, classifier=True)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, observer in inputs.items():
        scale, zero_point = observer.calculate_qparams()
        weight = layers[name].weight
        assert isinstance(weight, Tensor)
        found[name] = (_steps(weight.detach()), float(scale), int(zero_point))
    return found


def _steps(weight: Tensor) -> Tensor:
    observer = PerChannelMinMaxObserver(
        ch_axis=0,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        quant_min=-127,
        quant_max=127,
        eps=_TINY,
    )
    observer(weight)
    steps, _ = observer.calculate_qparams()
    assert isinstance(steps, Tensor)
    return steps
