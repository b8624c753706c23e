"""ONNX Runtime, as fast as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from convship.bench.engine import Engine
from convship.bench.grid import Case, Floats
from convship.bench.network_engine import NetworkEngine
from convship.bench.onnx_model import onnx_model
from convship.bench.settings import Settings


class Session:
    """All graph optimisations; inputs and outputs bound once, so a call copies nothing.

    Its threads may spin, as they do by default: between turns the whole process is stopped.

    Args:
        model: A path, or the model's bytes.
        inputs: The arrays to bind.
        threads: Threads inside one call.
    """

    def __init__(self, model: str | bytes, inputs: Mapping[str, Any], threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; not, for instance, that there is no GPU
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        self._names = [output.name for output in session.get_outputs()]
        for output in session.get_outputs():
            if all(isinstance(size, int) for size in output.shape):
                empty = np.empty(output.shape, _DTYPES[output.type])
                binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(empty))
            else:  # a size that only the call tells: memory of its own each time
                binding.bind_output(output.name)
        self._binding = binding
        self.call: Callable[[], object] = partial(session.run_with_iobinding, binding)

    def outputs(self) -> dict[str, Any]:
        """Call, and return all outputs by name."""
        self.call()
        arrays = self._binding.copy_outputs_to_cpu()
        return {name: np.array(array) for name, array in zip(self._names, arrays, strict=True)}


_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class OnnxRuntime(Engine):
    """One case of the op."""

    def __init__(self, case: Case, settings: Settings) -> None:
        model = onnx_model(case, settings.dtype)
        image = case.arrays(settings.dtype)[0]
        self._session = Session(model, {"input": image}, settings.threads)
        self.call = self._session.call

    def outputs(self) -> dict[str, Floats]:
        """Return the output."""
        return self._session.outputs()


class OnnxRuntimeNetwork(NetworkEngine):
    """A whole network, as exported to ONNX."""

    def prepare_input(self) -> None:
        """Name the arrays as the export did."""
        names = [name for name, _ in self.case.inputs]
        self.inputs = dict(zip(names, self.case.arrays(), strict=True))

    def load(self) -> None:
        """Read and optimise the file."""
        self._session = Session(self.case.onnx, self.inputs, self.settings.threads)
        self.call = self._session.call

    def outputs(self) -> dict[str, Floats]:
        """Return all outputs."""
        return self._session.outputs()
