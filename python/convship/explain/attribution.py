"""How much each place of the input counts for one class: three methods, computed by Captum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convship.explain.feature_map import Observed
from convship.extras import import_extra

__all__ = ["grad_cam", "import_captum", "integrated_gradients", "occlusion"]

_AT_ONCE = 16  # images per call of the network: bounds memory, and fills the kernels


def import_captum() -> Any:
    """Return `captum.attr`.

    Raises:
        ModuleNotFoundError: Captum is not installed; the message says how to.

    Example:
        >>> import_captum().__name__
        'captum.attr'
    """
    return import_extra("captum.attr", name="Captum", extra="explain", verb="explain")


def integrated_gradients(
    network: nn.Module, inputs: Tensor, baseline: Tensor, target: int, *, steps: int = 64
) -> tuple[Tensor, float]:
    """Return attributions [1, C, H, W] and what their sum misses.

    ``(x - x') * integral over a in [0, 1] of d logit(x' + a (x - x')) / dx``; they add up to
    ``logit(x) - logit(x')``, up to the error of the sum that stands for the integral.

    Args:
        network: Network input [N, C, H, W] to logits [N, classes].
        inputs: x, float32 [1, C, H, W].
        baseline: x', the same shape.
        target: Index of the class.
        steps: Points of the path that are looked at.

    Returns:
        Attributions, and their sum minus the difference of the logits.

    Example:
        >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.ones(1, 1, 2, 2)
        >>> map_, error = integrated_gradients(linear, x, torch.zeros_like(x), 1)
        >>> torch.allclose(map_.flatten(), linear[1].weight[1])
        True
    """
    attributions = (
        import_captum()
        .IntegratedGradients(network)
        .attribute(inputs, baseline, target=target, n_steps=steps, internal_batch_size=_AT_ONCE)
        .detach()
    )
    with torch.no_grad():
        difference = network(inputs)[0, target] - network(baseline)[0, target]
    return attributions, float(attributions.double().sum() - difference)


def grad_cam(network: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """Return the class activation map [1, 1, h, w] of the last feature map A.

    ``relu(sum over channels k of (mean over places of d logit / d A_k) * A_k)``

    Args:
        network: Network input [N, C, H, W] to logits [N, classes]; scripted or not.
        inputs: float32 [1, C, H, W].
        target: Index of the class.

    Raises:
        ValueError: The network has no feature map of more than one pixel.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 2))
        >>> grad_cam(network, torch.rand(1, 1, 5, 5), 0).shape
        torch.Size([1, 1, 3, 3])
    """
    observed = Observed(network)
    method = import_captum().LayerGradCam(observed, observed.features)
    cam: Tensor = method.attribute(inputs, target=target, relu_attributions=True)
    return cam.detach()


def occlusion(
    network: nn.Module, inputs: Tensor, baseline: Tensor, target: int, *, window: int
) -> Tensor:
    """Return by how much the logit falls where a window is covered, [1, C, H, W].

    The window moves by half its size; a pixel's value is the mean of the windows over it, and the
    same in all channels.

    Args:
        network: Network input [N, C, H, W] to logits [N, classes].
        inputs: float32 [1, C, H, W].
        baseline: What covers, the same shape.
        target: Index of the class.
        window: Height and width of the window, pixels.

    Raises:
        ValueError: The window is larger than the input.

    Example:
        >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> x = torch.ones(1, 1, 4, 4)
        >>> occlusion(linear, x, torch.zeros_like(x), 0, window=2).shape
        torch.Size([1, 1, 4, 4])
    """
    channels, height, width = inputs.shape[1:]
    if not 1 <= window <= min(height, width):
        raise ValueError(
            f"explain: window must be from 1 to {min(height, width)} pixels, got {window}"
        )
    stride = max(1, window // 2)
    with torch.no_grad():
        result: Tensor = (
            import_captum()
            .Occlusion(network)
            .attribute(
                inputs,
                (channels, window, window),
                (channels, stride, stride),
                baselines=baseline,
                target=target,
                perturbations_per_eval=_AT_ONCE,
            )
        )
    return result
