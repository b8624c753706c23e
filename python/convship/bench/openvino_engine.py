"""OpenVINO, as fast as it goes at the precision asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from convship.bench.engine import Engine
from convship.bench.grid import Case, Floats
from convship.bench.network_engine import NetworkEngine
from convship.bench.onnx_model import onnx_model
from convship.bench.settings import Settings


def make_request(model: Any, threads: int, precision: str) -> tuple[Any, Callable[[], object]]:
    """Compile for one CPU; return a request to be used again with its tensors, and its call.

    Latency hint, static shape. The precision ("f32", "bf16") is always said: left alone, CPUs
    with AMX compute in bfloat16.
    """
    import openvino as ov

    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        },
    )
    request = compiled.create_infer_request()
    # The method below the Python wrapper, which would build a dictionary of inputs.
    infer: Any = super(ov.InferRequest, request).infer  # type: ignore[misc,unused-ignore]
    return request, partial(infer, {}, share_outputs=True, decode_strings=False)


class OpenVino(Engine):
    """One case of the op."""

    def __init__(self, case: Case, settings: Settings) -> None:
        import openvino as ov

        self._channels_last = settings.layout == "channels_last"
        self._bfloat16 = settings.dtype == "bfloat16"
        model = ov.Core().read_model(io.BytesIO(onnx_model(case, settings.dtype)))
        precision = "bf16" if self._bfloat16 else "f32"
        request, self.call = make_request(
            self._with_tensors(ov, model), settings.threads, precision
        )
        self._output = request.get_output_tensor()
        self._write(request.get_input_tensor(), case.arrays(settings.dtype)[0])

    def outputs(self) -> dict[str, Floats]:
        """Return the output."""
        self.call()
        values = self._output.data
        if self._bfloat16:
            values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        if self._channels_last:
            values = values.transpose(0, 3, 1, 2)
        return {"output": np.array(values, np.float32, order="C")}

    def _with_tensors(self, ov: Any, model: Any) -> Any:
        """Give input and output the layout and dtype that the other engines have."""
        ends = ov.preprocess.PrePostProcessor(model)
        for end in (ends.input(), ends.output()):
            end.model().set_layout(ov.Layout("NCHW"))
            end.tensor().set_layout(ov.Layout("NHWC" if self._channels_last else "NCHW"))
            end.tensor().set_element_type(ov.Type.bf16 if self._bfloat16 else ov.Type.f32)
        return ends.build()

    def _write(self, tensor: Any, image: Floats) -> None:
        if self._channels_last:
            image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        if self._bfloat16:
            bits = (image.view(np.uint32) >> 16).astype(np.uint16)
            tensor.data.view(np.uint16)[...] = bits
        else:
            tensor.data[...] = image


class OpenVinoNetwork(NetworkEngine):
    """A whole network in float32, as exported to ONNX."""

    def prepare_input(self) -> None:
        """Read the arrays."""
        names = [name for name, _ in self.case.inputs]
        self.inputs = dict(zip(names, self.case.arrays(), strict=True))

    def load(self) -> None:
        """Read and compile the file; write the input where the request reads it."""
        import openvino as ov

        model = ov.Core().read_model(self.case.onnx)
        self._request, self.call = make_request(model, self.settings.threads, "f32")
        for name, array in self.inputs.items():
            self._request.get_tensor(name).data[...] = array

    def outputs(self) -> dict[str, Floats]:
        """Return all outputs."""
        self.call()
        compiled = self._request.get_compiled_model()
        return {
            output.get_any_name(): np.array(self._request.get_tensor(output).data)
            for output in compiled.outputs
        }
