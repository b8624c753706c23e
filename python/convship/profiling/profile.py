"""One network under PyTorch's profiler and in the native program."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from convship.bench.network import open_network
from convship.bench.torch_rungs import open_file
from convship.errors import ModelFileError
from convship.model import load
from convship.profiling.native_steps import native_plan
from convship.profiling.report import ProfileReport
from convship.profiling.torch_ops import record
from convship.profiling.trace import with_native_track

__all__ = ["profile_model"]


def profile_model(
    model: str | Path,
    *,
    batch: int = 1,
    threads: int = 1,
    size: Sequence[int] | None = None,
    allow_plain: bool = False,
    calls: int = 30,
    shapes: bool = False,
) -> ProfileReport:
    """Tell where the time of a call goes: in torch, in convship from Python, natively.

    The first two are seen by PyTorch's profiler, in which a plan of convship's kernels is one
    operator; what is inside of it, the native program tells step by step.

    Args:
        model: A shipped file; a run's folder; or a name that `create_model` knows, which gets
            random weights.
        batch: Images per call.
        threads: Threads inside one call.
        size: Sizes of one image, without the batch. None: as the file says.
        allow_plain: Accept a TorchScript file that convship did not write. A model is a program:
            load only files whose origin you trust.
        calls: How many calls are recorded.
        shapes: Whether an operator counts once per sizes of its inputs.

    Raises:
        FileNotFoundError: There is no such file, or the native program is not installed.
        ModelFileError: The file is damaged or of another kind.
        ValueError: The size is not known, or the network refuses such inputs.

    Example:
        >>> report = profile_model("lenet5", calls=3)
        >>> {op.name: op.count for op in report.ops["torch.jit.load"]}["aten::convolution"]
        2
        >>> report.native.whole
        True
    """
    for name, value in (("batch", batch), ("threads", threads), ("calls", calls)):
        if value < 1:
            raise ValueError(f"profile: {name} must be at least 1, got {value}")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(prefix="convship-profile-") as name:
            folder = Path(name)
            network = open_network(model, folder, size=size, allow_plain=allow_plain)
            case = network.case(batch, folder)
            inputs = [torch.from_numpy(array) for array in case.arrays()]
            stock = "aoti_load_package" if case.package else "torch.jit.load"
            ours = load(case.model, allow_plain=case.plain)
            recording = record(
                {
                    stock: partial(open_file(case), *inputs),
                    "convship.load": partial(ours.run, *inputs),
                },
                calls=calls,
                shapes=shapes,
            )
            report = ProfileReport(
                network.title,
                {each[0]: list(x.shape) for each, x in zip(case.inputs, inputs, strict=True)},
                threads,
                calls,
                recording.call_ms,
                recording.ops,
                None,
                trace=recording.trace,
            )
            # The same sizes, where the program can be told them.
            one_image = len(inputs) == 1 and inputs[0].dim() == 4
            sizes = inputs[0].shape[1:] if one_image else None
            _add_native(report, case.model, batch, threads, sizes, case.plain)
    finally:
        torch.set_num_threads(threads_before)
    return report


def _add_native(
    report: ProfileReport,
    file: str,
    batch: int,
    threads: int,
    sizes: Sequence[int] | None,
    plain: bool,
) -> None:
    try:
        plan = native_plan(file, batch=batch, threads=threads, size=sizes, plain=plain)
    except ModelFileError:
        raise
    except ValueError as error:  # inputs that the program cannot make up
        report.left_out["native"] = str(error)
        return
    report.native = plan
    report.trace = with_native_track(report.trace, plan, "convship.load")
