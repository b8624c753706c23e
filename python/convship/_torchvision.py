"""torchvision, importable beside a CPU-only torch too.

The torchvision on the Python index is built against the CUDA torch. Beside a CPU-only torch its
compiled ops do not load, and then ``import torchvision`` itself dies with "operator
torchvision::nms does not exist": it registers shape functions for two ops that nobody declared.
Data sets, transforms and classifiers need neither op, so declaring the two schemas is enough.

torchmetrics imports torchvision as well; import this module before it.

Example:
    >>> from convship._torchvision import torchvision
    >>> callable(torchvision.models.resnet18)
    True
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

__all__ = ["torchvision"]

# The declarations live as long as this object does.
_declared: torch.library.Library | None = None


def _compiled_ops_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    for library in (path for folder in folders or () for path in Path(folder).glob("_C.*")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


def _declare_missing_ops() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


if not _compiled_ops_load():
    _declared = _declare_missing_ops()

import torchvision  # type: ignore[import-untyped]  # noqa: E402  (must follow the declarations)
