"""The image beside its maps, as one picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convship.atomic import write_atomically
from convship.explain.explanation import Explanation

__all__ = ["draw_explanation"]

_TITLES = {
    "integrated-gradients": "integrated gradients",
    "grad-cam": "Grad-CAM",
    "occlusion": "occlusion",
}
# A few pixels of a signed map are far larger than all others; they may saturate.
_SATURATED = 0.01


def draw_explanation(found: Explanation, path: str | Path) -> None:
    """Draw the image as the network sees it, and every map over it in gray, as PNG.

    Red speaks for the class, blue against it; Grad-CAM goes from dark to bright.

    Example:
        >>> import tempfile
        >>> maps = {"occlusion": torch.tensor([[0.5, -1.0], [0.0, 2.0]])}
        >>> found = Explanation("cat", 0, 0.9, "cat", 0.9, torch.rand(3, 2, 2), maps)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_explanation(found, Path(folder) / "why.png")
    """
    # Not pyplot: it needs no display, and leaves the caller's figures and backend alone.
    from matplotlib.figure import Figure

    count = 1 + len(found.maps)
    height, width = found.picture.shape[1:]
    figure = Figure(figsize=(2.6 * count, 0.55 + 2.5 * height / width), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(_gray_or_colour(found.picture), vmin=0, vmax=1, cmap="gray")
    axes[0].set_title(_caption(found), fontsize=10)
    gray = found.picture.mean(0).numpy()
    for axis, (name, map_) in zip(axes[1:], found.maps.items(), strict=True):
        axis.imshow(gray, vmin=0, vmax=1, cmap="gray")
        _overlay(axis, map_, signed=name != "grad-cam")
        axis.set_title(_TITLES[name], fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _gray_or_colour(picture: Tensor) -> Any:
    return picture[0].numpy() if len(picture) == 1 else picture.permute(1, 2, 0).numpy()


def _caption(found: Explanation) -> str:
    own = f"{found.label}: {100 * found.probability:.1f} %"
    if found.label == found.top_label:
        return own
    return f"{own} (top: {found.top_label}, {100 * found.top_probability:.1f} %)"


def _overlay(axis: Any, map_: Tensor, *, signed: bool) -> None:
    magnitude = map_.abs()
    largest = float(torch.quantile(magnitude.flatten().double(), 1 - _SATURATED)) if signed else 0.0
    largest = largest or float(magnitude.max()) or 1.0  # of a map that is zero
    strength = (magnitude / largest).clamp(0, 1).numpy()
    if signed:
        # Opaque where it counts, so that the image shows where nothing does.
        axis.imshow(map_.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=strength)
    else:
        axis.imshow(map_.numpy(), cmap="inferno", vmin=0, vmax=largest, alpha=0.65)
