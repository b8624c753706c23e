"""Narrower numbers for what a network multiplies: bfloat16 or 8-bit integers. Part of export.

Layers of weights get their inputs and weights rounded; sums, results and everything else stay
float32. What comes out is a network of torch's own operators, which any runtime of theirs answers
alike; ours sees the roundings and multiplies the narrow numbers themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from convship.errors import ExportError
from convship.fusion.layers import NotFusedError, check_plain, padding_of
from convship.golden import Golden, largest_difference, run_network
from convship.nn import ConvPool2d
from convship.precision.calibration import observe
from convship.precision.folding import fold_batch_norms
from convship.precision.layers import (
    Bfloat16Operands,
    Int8Operands,
    Operands,
    RoundedConv2d,
    RoundedLinear,
)

__all__ = ["PRECISIONS", "Precision", "narrow"]

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS = ("float32", "bfloat16", "int8")

# Channels side by side in the kernels' memory: words are made of groups of whole blocks.
_BLOCK = 16
_COMPARED = 2  # samples that show whether folding changed anything

_Layer = nn.Conv2d | ConvPool2d | nn.Linear


def narrow(network: nn.Module, precision: Precision, calibration: Sequence[Golden]) -> nn.Module:
    """Return a copy of `network` whose convolutions and linear layers multiply narrow numbers.

    Batch norm behind a convolution is folded into it first, as far as torch.fx can follow the
    network. Depthwise convolutions stay as they are: their time is not in multiplications. So do
    groups of other than multiples of 16 channels: they do not fill the words that are multiplied.

    Args:
        network: In evaluation mode, not scripted.
        precision: "bfloat16": to the nearest, 8 bits of mantissa. "int8": inputs to 256 levels
            between limits that `calibration` shows (torch.ao's HistogramObserver), weights to 255
            levels up to each output channel's largest.
        calibration: Inputs as they will come.

    Raises:
        ExportError: There is nothing to round.
    """
    if not any(isinstance(m, _Layer) and _is_rounded(m) for m in network.modules()):
        raise ExportError(
            f"export_model: precision {precision!r} needs a float32 Conv2d or Linear layer without "
            "hooks or parametrizations, and there is none"
        )
    narrowed = copy.deepcopy(network)
    fold_batch_norms(narrowed)
    if not _alike(network, narrowed, calibration[:_COMPARED]):
        # Tracing takes optional arguments for given; these samples go another way.
        narrowed = copy.deepcopy(network)
    layers = {
        name: module
        for name, module in narrowed.named_modules()
        if isinstance(module, _Layer) and _is_rounded(module)
    }
    observed = observe(narrowed, layers, calibration) if precision == "int8" else {}
    replacements: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        bias = None if layer.bias is None else layer.bias.detach()
        if precision == "bfloat16":
            operands: Operands = Bfloat16Operands(layer.weight.detach(), bias)
        elif name in observed:
            operands = Int8Operands(layer.weight.detach(), bias, *observed[name])
        else:  # no input has reached it
            continue
        replacements[layer] = _rounded(layer, operands).eval()
    # A layer may have several names.
    for name, module in list(narrowed.named_modules(remove_duplicate=False)):
        if module in replacements and name:
            parent, _, attribute = name.rpartition(".")
            narrowed.get_submodule(parent).register_module(attribute, replacements[module])
    return replacements.get(narrowed, narrowed)


def _alike(a: nn.Module, b: nn.Module, goldens: Sequence[Golden]) -> bool:
    """Whether both give the same answers, but for what folding rounds."""
    with torch.no_grad():
        for golden in goldens:
            expected, actual = (run_network(each, golden.inputs, False) for each in (a, b))
            for name, value in expected.items():
                if value.is_floating_point() and value.numel() > 0:
                    most = 1e-3 * float(value.abs().max())
                    if not largest_difference(actual.get(name), value) <= most:
                        return False
    return True


def _is_rounded(layer: _Layer) -> bool:
    kinds = (nn.Conv2d, ConvPool2d, nn.Linear)
    # Subclasses may compute something else.
    if type(layer) not in kinds or layer.weight.dtype != torch.float32:
        return False
    try:
        check_plain(layer, type(layer))
        if isinstance(layer, nn.Linear):
            return True
        padding_of(layer)
    except NotFusedError:
        return False
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return False
    return layer.groups == 1 or layer.in_channels // layer.groups % _BLOCK == 0


def _rounded(layer: _Layer, operands: Operands) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return RoundedLinear(operands)
    conv = RoundedConv2d(
        operands,
        list(layer.stride),
        list(padding_of(layer)),
        list(layer.dilation),
        layer.groups,
    )
    if not isinstance(layer, ConvPool2d):
        return conv
    pool = nn.MaxPool2d(
        layer.pool_size, layer.pool_stride, layer.pool_padding, ceil_mode=layer.ceil_mode
    )
    return nn.Sequential(conv, nn.ReLU() if layer.activation == "relu" else nn.Identity(), pool)
