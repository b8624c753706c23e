"""Any nn.Module, its preprocessing, labels and sample inputs -> one file."""

from __future__ import annotations

import copy
import errno
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from convship import _library
from convship._version import __version__
from convship.aotinductor import AotInductorFile
from convship.atomic import write_atomically
from convship.bundle import (
    GOLDENS,
    MANIFEST,
    CompiledFor,
    Manifest,
    PrecisionTest,
    TensorSpec,
    Tolerances,
    with_digest,
)
from convship.data import Images
from convship.errors import ExportError
from convship.golden import (
    Golden,
    Image,
    NetworkInput,
    image_golden,
    largest_difference,
    run_network,
    tensor_golden,
)
from convship.precision import PRECISIONS, Precision, narrow
from convship.precision.accuracy import check_accuracy, check_change, compare, compare_on
from convship.scripting import TorchScriptFile, copy_of, first_line, script
from convship.tolerance import find_rounded_tolerances, find_tolerances, require_teeth

__all__ = ["export_model", "export_run"]

# Of a run's samples; each stores every stage, which for photographs is a megabyte.
_GOLDENS = 4
# Of a run's training images, which tell the range of every layer's input.
_CALIBRATION = 128

Sample = Image | Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def export_model(
    model: nn.Module,
    path: str | Path,
    *,
    samples: Sequence[Sample],
    preprocess: nn.Module | None = None,
    labels: Sequence[str] | None = None,
    method: Literal["script", "trace"] = "script",
    training: Mapping[str, Any] | None = None,
    format: Literal["pt", "pt2"] = "pt",
    cpu: Literal["x86-64-v3", "x86-64-v4"] | None = None,
    precision: Precision = "float32",
    calibration: Sequence[Sample] | None = None,
    test: Images | None = None,
    max_accuracy_drop: float = 0.01,
) -> Manifest:
    """Write `model` and all that belongs to it as one file that runs without Python.

    With `preprocess`, the model is a classifier of images: the file goes from uint8 pixels to
    probabilities. Without, it is any network from tensors to tensors. Loops and branches on data
    survive, because the model is scripted. `model` itself is not changed.

    The samples become goldens: the file holds their answers at every stage and can prove itself
    on any machine. The tolerance of each output is 16 times the model's largest float32 error
    against its own float64 run; the export checks that three faults exceed it (red and blue
    swapped, a layer dropped, a bfloat16 run), and that the native runtime stays inside it.

    Args:
        model: The trained network. For a classifier: float [N, C, S, S] to logits [N, classes].
        path: Where to write. The write is atomic; an older file stays until then.
        samples: A few real inputs, at least one. For a classifier images: paths of JPEG or PNG
            files, their bytes, or uint8 tensors [3, H, W] or [1, H, W]. Otherwise tensors,
            tuples of tensors, or dicts by argument name, as `model` takes them.
        preprocess: A scriptable module, uint8 [N, 3 or 1, H, W] RGB to the network's input, such
            as `convship.Preprocess` or torchvision's presets.
        labels: Class names in the order of the logits. "0", "1", ... where None.
        method: "script" keeps control flow; "trace" records one run of the first sample, for
            models that cannot be scripted.
        training: A summary for the manifest (JSON values).
        format: "pt" is TorchScript, which runs wherever LibTorch does. "pt2" is native code that
            AOTInductor compiles here, for one kind of CPU, with conv_pool2d where the network
            convolves and pools: no branches on data, and the sizes of the samples only, but for a
            classifier's batch. Needs a C++ compiler and takes a minute.
        cpu: What "pt2" is compiled for: CPUs with AVX2 ("x86-64-v3") or AVX-512 ("x86-64-v4"). The
            best that this machine has where None.
        precision: What convolutions and linear layers multiply, in a .pt file: "bfloat16" or
            "int8" are faster where the CPU has instructions for them (AMX, AVX512_BF16,
            AVX512_VNNI), as fast as float32 elsewhere, and make the file smaller. Sums and
            results are float32.
        calibration: For "int8": inputs that show what range each layer's input has, a hundred or
            so. The samples where None.
        test: For "bfloat16" and "int8": labelled images on which the file is compared with the
            float32 network, the result of which goes into the manifest. Without them, only the
            classes that the two name for the samples are compared.
        max_accuracy_drop: Refuse where top-1 accuracy on `test` falls by more than this share of
            the images (or, without `test`, where more of the samples get another class). A network
            without `preprocess` is refused where an output changes by a fifth of its largest value.

    Returns:
        The manifest in the file.

    Raises:
        ExportError: The model cannot be scripted or compiled, its answers change by it, the labels
            do not match the logits, or the samples could not reveal a fault.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> network = nn.Sequential(nn.Linear(3, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = export_model(network, f"{folder}/net.pt", samples=[torch.rand(4, 3)])
        >>> manifest.outputs[0].name, manifest.goldens
        ('output', 1)
    """
    _library.load()
    path = Path(path)
    _check_target(path)
    _check_arguments(samples, labels, method)
    _check_format(path, format, method, cpu)
    _check_precision(model, precision, format, preprocess, test, max_accuracy_drop)
    network = copy_of(model).cpu().eval()
    for parameter in network.parameters():  # requires_grad_ of a scripted module does not exist
        parameter.requires_grad_(False)
    with torch.no_grad():
        make = partial(_make_file, format, method, cpu)
        if precision == "float32":
            plan = _plan(network, preprocess, labels, samples, make)
        else:
            inputs = _goldens(network, preprocess, calibration or samples)
            narrowed = narrow(network, precision, inputs)
            plan = _plan(narrowed, preprocess, labels, samples, make)
            cost = _cost(network, plan, precision, test, max_accuracy_drop)
            plan = replace(plan, precision=precision, wide=network, precision_test=cost)
        manifest, archive = _build(plan, training)
    _check_native(archive, path)
    write_atomically(path, archive)
    return manifest


def export_run(
    run: str | Path,
    path: str | Path,
    checkpoint: Literal["best", "last"] = "best",
    *,
    format: Literal["pt", "pt2"] = "pt",
    cpu: Literal["x86-64-v3", "x86-64-v4"] | None = None,
    precision: Precision = "float32",
    max_accuracy_drop: float = 0.01,
) -> Manifest:
    """Write the network that `train` left in folder `run` as one file; see `export_model`.

    With another precision than float32, the file is calibrated on images that the run was trained
    with, and measured on all of its test images.

    Raises:
        ModelFileNotFoundError: There is no such run.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from convship.train import TrainConfig, train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train(TrainConfig(data="fake", epochs=1, out=f"{folder}/run"), verbose=False)
        ...     export_run(run.path, f"{folder}/model.pt").labels == run.labels
        True
    """
    from convship.data import load_data
    from convship.runs import load_run

    loaded = load_run(run, checkpoint)
    calibration, test = None, None
    if precision != "float32":
        data = load_data(loaded.config.data, held_out=loaded.config.held_out)
        step = max(1, len(data.train) // _CALIBRATION)
        calibration = [data.train.read(i) for i in range(0, len(data.train), step)[:_CALIBRATION]]
        test = data.test
    return export_model(
        loaded.model,
        path,
        samples=loaded.samples[:_GOLDENS],
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        training=loaded.summary,
        format=format,
        cpu=cpu,
        precision=precision,
        calibration=calibration,
        test=test,
        max_accuracy_drop=max_accuracy_drop,
    )


class _File(Protocol):
    """What is particular to a format."""

    @property
    def compiled_for(self) -> CompiledFor | None: ...
    @property
    def required_ops(self) -> list[str]: ...
    def argument_names(self) -> list[str]: ...
    def ship(self, preprocess: torch.jit.ScriptModule | None, inputs: NetworkInput) -> None: ...
    def answer(self, inputs: NetworkInput) -> dict[str, Tensor]: ...
    def archive(self, extras: Mapping[str, bytes]) -> bytes: ...


def _make_file(
    format: str, method: str, cpu: str | None, network: nn.Module, example: tuple[Any, ...]
) -> _File:
    if format == "pt2":
        return AotInductorFile(network, cpu)
    return TorchScriptFile(network, example, method)


@dataclass(frozen=True)
class _Plan:
    """All that goes into the file, before anything is computed from it."""

    network: nn.Module
    file: _File
    preprocess: nn.Module | None
    labels: list[str]
    goldens: list[Golden]
    inputs: list[TensorSpec]
    precision: Precision = "float32"
    wide: nn.Module | None = None  # the network before it was narrowed
    precision_test: PrecisionTest | None = None


def _check_arguments(samples: Any, labels: Any, method: str) -> None:
    if isinstance(samples, str | bytes | Tensor | Mapping) or not isinstance(samples, Sequence):
        raise ExportError(
            f"export_model: samples must be a list of inputs, got {type(samples).__name__}"
        )
    if not samples:
        raise ExportError("export_model: samples must hold at least one input, got none")
    if method not in ("script", "trace"):
        raise ExportError(f"export_model: method must be 'script' or 'trace', got {method!r}")
    if labels is not None and (
        isinstance(labels, str) or not all(isinstance(label, str) for label in labels)
    ):
        raise ExportError("export_model: labels must be a list of strings, one per class")


def _check_format(path: Path, format: str, method: str, cpu: str | None) -> None:
    if format not in ("pt", "pt2"):
        raise ExportError(f"export_model: format must be 'pt' or 'pt2', got {format!r}")
    if format == "pt" and cpu is not None:
        raise ExportError("export_model: cpu is for format 'pt2'; a .pt file runs on any")
    if format == "pt2" and method != "script":
        raise ExportError(
            "export_model: method is for format 'pt'; 'pt2' is traced by torch.export"
        )
    if format == "pt2" and path.suffix != ".pt2":
        raise ExportError(
            f"export_model: the name of a file of format 'pt2' must end in .pt2, got '{path.name}'"
        )


def _check_precision(
    model: nn.Module,
    precision: str,
    format: str,
    preprocess: nn.Module | None,
    test: Images | None,
    max_accuracy_drop: float,
) -> None:
    if precision not in PRECISIONS:
        raise ExportError(
            f"export_model: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if precision != "float32" and format == "pt2":
        raise ExportError(
            f"export_model: precision {precision!r} is for format 'pt', whose plan multiplies such "
            "numbers"
        )
    if precision != "float32" and isinstance(model, torch.jit.ScriptModule):
        raise ExportError(
            f"export_model: precision {precision!r} needs the nn.Module, got a scripted module"
        )
    if test is not None and (preprocess is None or precision == "float32"):
        raise ExportError(
            "export_model: test is for a classifier with preprocess, and for precision 'bfloat16' "
            "or 'int8'"
        )
    if not 0 <= max_accuracy_drop <= 1:
        raise ExportError(
            "export_model: max_accuracy_drop must be a share of the images, 0 to 1, got "
            f"{max_accuracy_drop}"
        )


def _cost(
    network: nn.Module,
    plan: _Plan,
    precision: Precision,
    test: Images | None,
    max_accuracy_drop: float,
) -> PrecisionTest | None:
    """Return what narrower numbers cost a classifier; raise ExportError where it is too much."""
    if plan.preprocess is None:
        check_change(network, plan.network, plan.goldens)
        return None
    if test is None:
        result = compare(network, plan.network, plan.goldens)
    else:
        result = compare_on(network, plan.network, test, plan.preprocess)
    check_accuracy(precision, result, max_accuracy_drop)
    return result


def _goldens(
    network: nn.Module, preprocess: nn.Module | None, samples: Sequence[Sample]
) -> list[Golden]:
    """Return samples as calls of the network, for calibration."""
    if preprocess is not None:
        preprocess = copy.deepcopy(preprocess).cpu().eval()
        return [image_golden(sample, preprocess) for sample in samples]  # type: ignore[arg-type]
    names = list(inspect.signature(network.forward).parameters)
    return [tensor_golden(_by_name(sample, names)) for sample in samples]


def _check_target(path: Path) -> None:
    """Find out before the work, not after it, that the file cannot be written."""
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file name", str(path))


def _plan(
    network: nn.Module,
    preprocess: nn.Module | None,
    labels: Sequence[str] | None,
    samples: Sequence[Sample],
    make: Callable[[nn.Module, tuple[Any, ...]], _File],
) -> _Plan:
    if preprocess is None:
        if labels is not None:
            raise ExportError("export_model: labels need preprocess, which was not given")
        file = make(network, _arguments(network, samples[0]))
        names = file.argument_names()
        goldens = [tensor_golden(_by_name(sample, names)) for sample in samples]
        inputs = [
            TensorSpec(name=name, dtype=_dtype(value), shape=list(value.shape))
            for name, value in goldens[0].inputs.items()
        ]
        if file.compiled_for is not None:
            _check_alike(goldens)
        file.ship(None, goldens[0].inputs)
        return _Plan(network, file, None, [], goldens, inputs)

    preprocess = copy.deepcopy(preprocess).cpu().eval()
    scripted_preprocess = script(preprocess, (), "script")
    goldens = [image_golden(sample, scripted_preprocess) for sample in samples]  # type: ignore[arg-type]
    example = goldens[0].inputs["input"]
    file = make(network, (example,))
    labels = _find_labels(network, goldens[0], labels)
    file.ship(scripted_preprocess, goldens[0].inputs)
    inputs = [TensorSpec(name="input", dtype=_dtype(example), shape=[None, *example.shape[1:]])]
    return _Plan(network, file, preprocess, labels, goldens, inputs)


def _check_alike(goldens: Sequence[Golden]) -> None:
    """A compiled network takes one size."""

    def sizes(golden: Golden) -> str:
        return ", ".join(f"{n} {_dtype(v)} {list(v.shape)}" for n, v in golden.inputs.items())

    for index, golden in enumerate(goldens):
        if sizes(golden) != sizes(goldens[0]):
            raise ExportError(
                f"export_model: samples for format 'pt2' must all have one size, got "
                f"{sizes(goldens[0])} and, of sample {index}, {sizes(golden)}"
            )


def _find_labels(network: nn.Module, golden: Golden, labels: Sequence[str] | None) -> list[str]:
    try:
        logits = run_network(network, golden.inputs, classifier=True)["logits"]
    except RuntimeError as error:
        raise ExportError(
            f"export_model: the network refuses what preprocess gives it: {first_line(error)}"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not logits.is_floating_point():
        got = (
            f"{_dtype(logits)} {list(logits.shape)}"
            if isinstance(logits, Tensor)
            else type(logits).__name__
        )
        raise ExportError(
            "export_model: a network with preprocess must return logits [N, classes], got "
            f"{got}; leave preprocess out to ship any other network"
        )
    classes = logits.shape[1]
    names = [str(index) for index in range(classes)] if labels is None else list(labels)
    if len(names) != classes:
        raise ExportError(
            f"export_model: labels must name the network's {classes} classes, "
            f"got {len(names)} labels"
        )
    return names


def _build(plan: _Plan, training: Mapping[str, Any] | None) -> tuple[Manifest, bytes]:
    classifier = plan.preprocess is not None
    answers = _answers(plan)
    if plan.wide is None:
        tolerances = find_tolerances(plan.network, plan.goldens, answers, classifier)
    else:
        tolerances = find_rounded_tolerances(
            plan.wide, plan.goldens, answers, classifier, plan.precision
        )
    teeth = require_teeth(
        plan.network,
        plan.preprocess,
        plan.goldens,
        answers,
        tolerances,
        rounded=plan.wide is not None,
    )
    _check_scripted(plan, answers, tolerances)
    manifest = Manifest(
        convship=__version__,
        torch=torch.__version__,
        task="classification" if classifier else "general",
        inputs=plan.inputs,
        outputs=[
            TensorSpec(
                name=name,
                dtype=_dtype(value),
                shape=[None, *value.shape[1:]] if classifier else list(value.shape),
            )
            for name, value in answers[0].items()
        ],
        labels=plan.labels,
        required_ops=plan.file.required_ops,
        precision=plan.precision,
        precision_test=plan.precision_test,
        tolerances=tolerances,
        goldens=len(plan.goldens),
        teeth=teeth,
        training=dict(training) if training is not None else None,
        compiled_for=plan.file.compiled_for,
    )
    tensors: dict[str, Tensor] = {}
    for index, (golden, answer) in enumerate(zip(plan.goldens, answers, strict=True)):
        tensors.update(golden.tensors(index, answer))
    extras = {
        MANIFEST: manifest.model_dump_json(indent=1).encode(),
        GOLDENS: save_safetensors(tensors),
    }
    return manifest, with_digest(plan.file.archive(extras))


def _answers(plan: _Plan) -> list[dict[str, Tensor]]:
    """What the network answers to each golden, if that can be a reference at all."""
    classifier = plan.preprocess is not None
    answers = [run_network(plan.network, golden.inputs, classifier) for golden in plan.goldens]
    again = run_network(plan.network, plan.goldens[0].inputs, classifier)
    if not answers[0]:
        raise ExportError("export_model: the network returns no tensor")
    for index, answer in enumerate(answers):
        if answer.keys() != answers[0].keys():
            raise ExportError(
                "export_model: all samples must give the same outputs, got "
                f"{', '.join(answers[0])} and, of sample {index}, {', '.join(answer)}"
            )
        for name, value in answer.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise ExportError(
                    f"export_model: output '{name}' of sample {index} is not finite, so it cannot "
                    "prove anything; look at the weights and at the sample"
                )
    for name, value in answers[0].items():
        if largest_difference(again[name], value) > 0:
            raise ExportError(
                f"export_model: output '{name}' changes from one run to the next (randomness, or "
                "state that the network keeps); a shipped network must answer alike each time"
            )
    return answers


def _check_scripted(plan: _Plan, answers: list[dict[str, Tensor]], tolerances: Tolerances) -> None:
    """Scripting must not have changed the answers (a branch that only Python saw, say)."""
    how = "scripted" if plan.file.compiled_for is None else "traced"
    for index, (golden, expected) in enumerate(zip(plan.goldens, answers, strict=True)):
        actual = plan.file.answer(golden.inputs)
        for name, value in expected.items():
            error = largest_difference(actual.get(name), value)
            if error > tolerances.outputs[name]:
                raise ExportError(
                    f"export_model: {how}, the model answers differently: output '{name}' of "
                    f"sample {index} is off by {error:.3g}, "
                    f"tolerance {tolerances.outputs[name]:.3g}"
                )


def _check_native(archive: bytes, path: Path) -> None:
    """The file must pass its own goldens in the native runtime before it replaces an older one."""
    from convship import _C

    model = _C.Model.from_bytes(archive, str(path))
    for check in model.selftest():
        if not check.passed:
            raise ExportError(
                f"export_model: the native runtime answers differently: golden {check.golden}, "
                f"{check.stage} is off by {check.max_error:.3g}, tolerance {check.tolerance:.3g}"
            )


def _arguments(network: nn.Module, sample: Any) -> tuple[Any, ...]:
    """The sample in the order of the network's arguments, for tracing."""
    if isinstance(sample, Tensor):
        return (sample,)
    if isinstance(sample, Mapping):
        order = list(inspect.signature(network.forward).parameters)
        return tuple(sample[name] for name in order if name in sample)
    return tuple(sample)


def _by_name(sample: Any, names: list[str]) -> NetworkInput:
    if isinstance(sample, Mapping):
        given = dict(sample)
    else:
        values: tuple[Any, ...] = (sample,) if isinstance(sample, Tensor) else tuple(sample)
        given = dict(zip([*names, *map(str, range(len(names), len(values)))], values, strict=False))
    if unknown := [name for name in given if name not in names]:
        raise ExportError(
            f"export_model: the network takes {len(names)} inputs ({', '.join(names)}), got "
            f"{len(given)} with '{unknown[0]}'"
        )
    # In the order of forward, however the sample was written.
    named = {name: given[name] for name in names if name in given}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ExportError(
                f"export_model: input '{name}' must be a tensor, got {type(value).__name__}; wrap "
                "the network in a module that takes tensors"
            )
    return named


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
