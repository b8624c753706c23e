"""ONNX Runtime, as fast as it goes."""

from __future__ import annotations

from functools import partial

import numpy as np

from convship.bench.engine import Engine
from convship.bench.grid import Case, Floats
from convship.bench.onnx_model import onnx_model
from convship.bench.settings import Settings


class OnnxRuntime(Engine):
    """All graph optimisations; input and output bound once, so a call copies nothing.

    Its threads may spin, as they do by default: between turns the whole process is stopped.
    """

    def __init__(self, case: Case, settings: Settings) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; not, for instance, that there is no GPU
        session = ort.InferenceSession(
            onnx_model(case, settings.dtype), options, providers=["CPUExecutionProvider"]
        )
        image = case.arrays(settings.dtype)[0]
        self._output = ort.OrtValue.ortvalue_from_numpy(np.empty(case.output, np.float32))
        binding = session.io_binding()
        binding.bind_ortvalue_input("input", ort.OrtValue.ortvalue_from_numpy(image))
        binding.bind_ortvalue_output("output", self._output)
        self.call = partial(session.run_with_iobinding, binding)

    def outputs(self) -> dict[str, Floats]:
        """Return the output."""
        self.call()
        return {"output": self._output.numpy().copy()}
