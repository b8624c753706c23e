"""The case as an ONNX model, which ONNX Runtime and OpenVINO both read."""

from __future__ import annotations

from convship.bench.grid import Case

_OPSET = 17  # of the three operators; what all current releases read
_IR_VERSION = 9


def onnx_model(case: Case, dtype: str) -> bytes:
    """Return Conv, Relu and MaxPool with fixed shapes, serialised."""
    import onnx
    from onnx import helper, numpy_helper

    def symmetric(pair: tuple[int, int]) -> list[int]:
        return [*pair, *pair]

    _, weight, bias = case.arrays(dtype)
    nodes = [
        helper.make_node(
            "Conv",
            ["input", "weight", "bias"],
            ["conv"],
            kernel_shape=case.weight[2:],
            strides=case.stride,
            pads=symmetric(case.padding),
            dilations=case.dilation,
            group=case.groups,
        ),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node(
            "MaxPool",
            ["relu"],
            ["output"],
            kernel_shape=case.pool_size,
            strides=case.pool_stride,
            pads=symmetric(case.pool_padding),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        case.name,
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, case.input)],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, case.output)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    return bytes(model.SerializeToString())
