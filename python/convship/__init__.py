"""Train a convnet in PyTorch, ship it as one file, run it in a native app with no Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from convship._version import __version__

if TYPE_CHECKING:
    from convship.batch_predict.collection import predict_collection as predict_collection
    from convship.batch_predict.predictor import Predictor as Predictor
    from convship.bundle import Manifest as Manifest
    from convship.bundle import inspect as inspect
    from convship.errors import ExportError as ExportError
    from convship.errors import ImageError as ImageError
    from convship.errors import ModelFileError as ModelFileError
    from convship.explain.explanation import explain_image as explain_image
    from convship.export import export_model as export_model
    from convship.fusion import fuse as fuse
    from convship.model import Model as Model
    from convship.model import load as load
    from convship.nn import ConvPool2d as ConvPool2d
    from convship.ops import conv_pool2d as conv_pool2d
    from convship.preprocess import Preprocess as Preprocess
    from convship.profiling.profile import profile_model as profile_model
    from convship.signing import sign as sign
    from convship.verify import verify_model as verify_model

# Public name -> module. Resolved at first use, so that `import convship` and the command line's
# --help do not wait for torch.
_PUBLIC = {
    "ConvPool2d": "nn",
    "ExportError": "errors",
    "ImageError": "errors",
    "Manifest": "bundle",
    "Model": "model",
    "ModelFileError": "errors",
    "Predictor": "batch_predict.predictor",
    "Preprocess": "preprocess",
    "conv_pool2d": "ops",
    "explain_image": "explain.explanation",
    "export_model": "export",
    "fuse": "fusion",
    "inspect": "bundle",
    "load": "model",
    "predict_collection": "batch_predict.collection",
    "profile_model": "profiling.profile",
    "sign": "signing",
    "verify_model": "verify",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convship' has no attribute '{name}'")
    return getattr(importlib.import_module(f"convship.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
