"""How far another implementation may be off, and proof that the goldens would notice a fault."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from convship.bundle import Tolerances
from convship.errors import ExportError
from convship.golden import (
    Golden,
    NetworkInput,
    largest_difference,
    probabilities,
    run_network,
)

# Another summation order errs about as much as ours; 16 leaves room for deep
# networks on other machines, and faults are thousands of times larger.
_FACTOR = 16
_FLOOR = 1e-6
# Where a model cannot run in float64: float32 sums of some hundred terms.
_WITHOUT_FLOAT64 = 1e-5
_LAYERS_TRIED = 8
# Of what rounding costs: int8 is the same everywhere, but for values that lie
# between two levels, which another order of sums rounds the other way. bfloat16
# is not rounded where the CPU gains nothing by it, and other images than the
# samples lose more.
_FACTORS_OF_ROUNDING = {"bfloat16": 8.0, "int8": 2.0}
# Roundings of few samples may cancel out by chance.
_FLOOR_OF_ROUNDING = 2e-3

Answer = dict[str, Tensor]


def find_tolerances(
    network: nn.Module, goldens: Sequence[Golden], answers: Sequence[Answer], classifier: bool
) -> Tolerances:
    """Return 16 times the largest error against float64, at least 1e-6 of the largest value.

    Outputs of integers and booleans must be equal. For a classifier, the same rule holds for the
    probabilities.
    """
    return _tolerances(
        answers, _run_in_float64(network, goldens, classifier), classifier, _FACTOR, _FLOOR
    )


def find_rounded_tolerances(
    network: nn.Module,
    goldens: Sequence[Golden],
    answers: Sequence[Answer],
    classifier: bool,
    precision: str,
) -> Tolerances:
    """Return some times the largest difference from `network`, which rounds nothing."""
    exact = [run_network(network, golden.inputs, classifier) for golden in goldens]
    return _tolerances(
        answers, exact, classifier, _FACTORS_OF_ROUNDING[precision], _FLOOR_OF_ROUNDING
    )


def _tolerances(
    answers: Sequence[Answer],
    exact: list[Answer] | None,
    classifier: bool,
    factor: float,
    floor: float,
) -> Tolerances:
    outputs = {name: _tolerance(name, answers, exact, factor, floor) for name in answers[0]}
    if not classifier:
        return Tolerances(outputs=outputs)
    softmaxed = [{"logits": probabilities(answer["logits"])} for answer in answers]
    softmaxed_exact = exact and [
        {"logits": torch.softmax(answer["logits"], dim=1)} for answer in exact
    ]
    return Tolerances(
        outputs=outputs,
        probabilities=_tolerance("logits", softmaxed, softmaxed_exact, factor, floor),
    )


def _run_in_float64(
    network: nn.Module, goldens: Sequence[Golden], classifier: bool
) -> list[Answer] | None:
    """None where the model insists on another dtype somewhere inside."""
    wide = _converted(network, torch.float64)
    try:
        return [
            run_network(wide, _floats_to(golden.inputs, torch.float64), classifier)
            for golden in goldens
        ]
    except RuntimeError:
        return None


def _tolerance(
    name: str,
    answers: Sequence[Answer],
    exact: Sequence[Answer] | None,
    factor: float,
    floor: float,
) -> float:
    values = [answer[name] for answer in answers]
    if not values[0].is_floating_point():
        return 0.0
    finite = [value.double().nan_to_num(0.0, 0.0, 0.0).abs() for value in values]
    largest = max((float(value.max()) for value in finite if value.numel()), default=0.0)
    if exact is None:
        return _WITHOUT_FLOAT64 * largest
    error = max(
        largest_difference(value, truth[name]) for value, truth in zip(values, exact, strict=True)
    )
    if error == float("inf"):
        # Another branch, or an overflow that only one of the two has.
        return _WITHOUT_FLOAT64 * largest
    return max(factor * error, floor * largest)


def require_teeth(
    network: nn.Module,
    preprocess: nn.Module | None,
    goldens: Sequence[Golden],
    answers: Sequence[Answer],
    tolerances: Tolerances,
    rounded: bool = False,
) -> dict[str, float | str]:
    """Return, per deliberate fault, how many times over the tolerance a golden sees it.

    The faults are red and blue swapped, a layer dropped (the least visible of up to eight), and,
    but for `rounded` networks, a run in bfloat16. A fault that cannot exist (gray images, no
    parameters) is said in words.

    Raises:
        ExportError: The goldens do not see a fault.
    """
    classifier = preprocess is not None

    def times_over(faulty: nn.Module, inputs: Callable[[Golden], NetworkInput]) -> float:
        largest = 0.0
        for golden, answer in zip(goldens, answers, strict=True):
            outputs = run_network(faulty, inputs(golden), classifier)
            largest = max(largest, _times_over(outputs, answer, tolerances))
            if largest > 1:  # one golden that sees the fault is enough
                break
        return largest

    seen: dict[str, float | str] = {}
    if preprocess is not None:
        seen["red and blue swapped"] = _swapped(network, preprocess, goldens, times_over)
    seen["layer dropped"], unseen = _dropped(network, times_over)
    if unseen:
        seen["layers that no sample reaches"] = ", ".join(unseen)
    seen["bfloat16"] = "the model is no wider" if rounded else _narrowed(network, times_over)
    for fault, ratio in seen.items():
        if isinstance(ratio, float) and ratio <= 1:
            raise ExportError(
                f"export_model: the samples do not reveal a fault ({fault} stays within the "
                "tolerance); give more varied samples"
            )
    return seen


_TimesOver = Callable[[nn.Module, Callable[[Golden], NetworkInput]], float]


def _swapped(
    network: nn.Module, preprocess: nn.Module, goldens: Sequence[Golden], times_over: _TimesOver
) -> float | str:
    def swap(golden: Golden) -> NetworkInput:
        assert golden.pixels is not None
        return {"input": preprocess(golden.pixels[[2, 1, 0]].unsqueeze(0))}

    if all(torch.equal(swap(golden)["input"], golden.inputs["input"]) for golden in goldens):
        return "the samples are gray"
    return times_over(network, swap)


def _dropped(network: nn.Module, times_over: _TimesOver) -> tuple[float | str, list[str]]:
    """The least visible of the layers that the samples reach, and those they do not reach."""
    layers = [
        name
        for name, module in network.named_modules()
        if any(p.is_floating_point() and p.numel() for p in module.parameters(recurse=False))
    ]
    if not layers:
        return "no layer has parameters", []
    # Spread over the depth, first and last included.
    count = min(_LAYERS_TRIED, len(layers))
    tried = [layers[i * (len(layers) - 1) // max(1, count - 1)] for i in range(count)]
    ratios: dict[str, float] = {}
    for name in dict.fromkeys(tried):
        faulty = copy.deepcopy(network)
        # Not get_submodule, which scripted modules lack.
        for parameter in dict(faulty.named_modules())[name].parameters(recurse=False):
            parameter.zero_()
        ratios[name] = times_over(faulty, lambda golden: golden.inputs)
    unseen = [name for name, ratio in ratios.items() if ratio <= 1]
    if len(unseen) == len(ratios):
        return 0.0, []
    if unseen:
        # A branch that no sample takes is no fault of the model's.
        warnings.warn(
            f"export_model: the samples do not reach the layers {', '.join(unseen)}", stacklevel=4
        )
    return min(ratio for ratio in ratios.values() if ratio > 1), unseen


def _narrowed(network: nn.Module, times_over: _TimesOver) -> float | str:
    dtypes = {p.dtype for p in network.parameters() if p.is_floating_point()}
    if not dtypes:
        return "no layer has parameters"
    if dtypes <= {torch.bfloat16, torch.float16}:
        return "the model is no wider"
    narrow = _converted(network, torch.bfloat16)
    try:
        return times_over(narrow, lambda golden: _floats_to(golden.inputs, torch.bfloat16))
    except RuntimeError:
        # The model insists on float32 inside: round its parameters only.
        narrow = copy.deepcopy(network)
        for parameter in narrow.parameters():
            parameter.copy_(parameter.bfloat16())
        return times_over(narrow, lambda golden: golden.inputs)


def _converted(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy with all floats in `dtype`; Module.to is not supported by scripted modules."""
    copied = copy.deepcopy(network)
    for tensor in (*copied.parameters(), *copied.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return copied


def _times_over(actual: Answer, expected: Answer, tolerances: Tolerances) -> float:
    ratios = []
    for name, value in expected.items():
        error = largest_difference(actual.get(name), value)
        tolerance = tolerances.outputs[name]
        ratios.append(error / tolerance if tolerance > 0 else float("inf") if error > 0 else 0.0)
    # A manifest is JSON, which has no infinity.
    return min(max(ratios, default=0.0), 1e30)


def _floats_to(inputs: NetworkInput, dtype: torch.dtype) -> NetworkInput:
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
