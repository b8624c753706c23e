"""OpenVINO, as fast as it goes at the precision asked for."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np

from convship.bench.engine import Engine
from convship.bench.grid import Case, Floats
from convship.bench.onnx_model import onnx_model
from convship.bench.settings import Settings


class OpenVino(Engine):
    """Latency hint, static shape, one request that is used again with the same tensors.

    The precision is always said: left alone, CPUs with AMX compute in bfloat16.
    """

    def __init__(self, case: Case, settings: Settings) -> None:
        import openvino as ov

        self._channels_last = settings.layout == "channels_last"
        self._bfloat16 = settings.dtype == "bfloat16"
        core = ov.Core()
        model = core.read_model(io.BytesIO(onnx_model(case, settings.dtype)))
        compiled = core.compile_model(
            self._with_tensors(ov, model),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if self._bfloat16 else "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": settings.threads,
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,  # the process is pinned already
            },
        )
        request = compiled.create_infer_request()
        self._output = request.get_output_tensor()
        self._write(request.get_input_tensor(), case.arrays(settings.dtype)[0])
        # The method below the Python wrapper, which would build a dictionary of inputs.
        infer: Any = super(ov.InferRequest, request).infer  # type: ignore[misc,unused-ignore]
        self.call = partial(infer, {}, share_outputs=True, decode_strings=False)

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
