"""The last feature map of a network that offers no layers to hook on.

Grad-CAM looks at the activations of the last convolution. A loaded TorchScript module runs as one
graph: hooks on its submodules are never called, and where loops and branches come first there is
not even one place in the graph to cut it at. But every operator passes through torch's
dispatcher, where its result can be kept; once the operator has returned, that very tensor is
part of autograd's graph. `Observed` hands it to a layer of its own, for Captum's hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Observed"]


class Observed(nn.Module):
    """A network of which the last feature map is a layer.

    That is the last result [N, C, H, W] that has the size of the last convolution's: the
    convolution itself, or its batch norm, its activation, a sum that it ends in. Maps of a single
    pixel (squeeze-and-excitation, heads of 1x1 convolutions) have no place to show and do not
    count.

    Args:
        network: Network input [N, C, S, S] to logits [N, classes].

    Attributes:
        features: The layer: feature map in, the same out.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.features = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits; raise ValueError where there is no feature map."""
        with torch.enable_grad(), _Maps() as maps:
            logits: Tensor = self.network(inputs.detach().requires_grad_())
        self.features(maps.last(logits))
        return logits


class _Maps(TorchDispatchMode):
    """Keeps every result that may be a feature map, and where convolutions were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._results: list[Tensor] = []
        self._size: Sequence[int] | None = None  # of the last convolution's result
        self._first = 0  # its index

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*arguments, **(options or {}))
        # Some ops return more: indices of a max pool, for the backward pass.
        value = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 4:
            height, width = value.shape[2:]
            name = function.name().split("::")[1]  # type: ignore[attr-defined]
            if "conv" in name and height * width > 1:
                self._size, self._first = (height, width), len(self._results)
            self._results.append(value)
        return result

    def last(self, logits: Tensor) -> Tensor:
        """Return the last feature map on which `logits` depend."""
        if self._size is not None:
            candidates = [
                value
                for value in self._results[self._first :]
                if value.requires_grad and tuple(value.shape[2:]) == self._size
            ]
            # Operators' own working copies look the same, but nothing follows from them.
            gradients = torch.autograd.grad(
                logits.sum(), candidates, retain_graph=True, allow_unused=True
            )
            for value, gradient in zip(reversed(candidates), reversed(gradients), strict=True):
                if gradient is not None:
                    return value
        raise ValueError(
            "explain: Grad-CAM looks at the last convolution's feature map, and this network has "
            "none of more than one pixel; leave it out: --methods integrated-gradients,occlusion"
        )
