"""One network with one input: what every rung of the ladder is made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NetworkCase"]


@dataclass(frozen=True)
class NetworkCase:
    """All are files, so that processes share the numbers and none holds them twice.

    Attributes:
        name: "batch 8".
        batch: Images per call.
        model: The shipped file, or a plain TorchScript file.
        plain: Whether it is the latter.
        inputs: Name and .npy file of each argument of the network.
        module: The nn.Module before it was shipped, pickled; empty where there is none.
        onnx: The network as ONNX with fixed shapes; empty where no rung needs it.
        image: An encoded image, where the file takes images; else empty.
        package: Whether `model` is a .pt2 file.

    Example:
        >>> NetworkCase("batch 1", 1, "model.pt", False, ()).arrays()
        []
    """

    name: str
    batch: int
    model: str
    plain: bool
    inputs: tuple[tuple[str, str], ...]
    module: str = ""
    onnx: str = ""
    image: str = ""
    package: bool = False

    def arrays(self) -> list[NDArray[np.generic]]:
        """Return the inputs in the order of the network's arguments."""
        return [np.load(path) for _, path in self.inputs]
