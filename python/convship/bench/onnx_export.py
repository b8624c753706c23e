"""A whole network as an ONNX file with fixed shapes, for ONNX Runtime and OpenVINO."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from convship.bench.network_case import NetworkCase
from convship.bench.torch_rungs import script_module

__all__ = ["export_onnx"]

_OPSET = 17  # what all current releases read


def export_onnx(case: NetworkCase, path: Path) -> str:
    """Write the network of a case as ONNX; return why that failed, empty where it did not.

    From the nn.Module where there is one, as its users would: a scripted one keeps branches and
    optional results (googlenet's, densenet's), which other engines do not take. Else from the
    file.

    Args:
        case: Its inputs give the shapes and the names.
        path: The file to write.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     np.save(folder / "x.npy", np.zeros((1, 3), np.float32))
        ...     torch.jit.script(torch.nn.Linear(3, 2)).save(folder / "net.pt")
        ...     inputs = (("input", str(folder / "x.npy")),)
        ...     case = NetworkCase("batch 1", 1, str(folder / "net.pt"), True, inputs)
        ...     problem = export_onnx(case, folder / "net.onnx")
        >>> problem == "" or "onnx" in problem  # without the package onnx, it says so
        True
    """
    if not case.module:
        return _export(script_module(case), case, path)
    # Fused attention has no ONNX operator; its parts have.
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        module = torch.load(case.module, weights_only=False).eval()
        problem = _export(module, case, path)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return _export(script_module(case), case, path) if problem else ""


def _export(module: Any, case: NetworkCase, path: Path) -> str:
    names = [name for name, _ in case.inputs]
    tensors = tuple(torch.from_numpy(array) for array in case.arrays())
    try:
        with torch.no_grad(), warnings.catch_warnings(), _silence():
            warnings.simplefilter("ignore")  # deprecations, and shapes that become constants
            torch.onnx.export(
                module,
                tensors,
                str(path),
                input_names=names,
                opset_version=_OPSET,
                dynamo=False,  # takes TorchScript; the newer exporter does not
            )
    except Exception as error:  # whatever the exporter cannot do
        path.unlink(missing_ok=True)
        return f"cannot be exported to ONNX: {' '.join(str(error).split())[:200]}"
    return ""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints the whole graph when it fails, from C++: below Python's streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
