"""What narrower numbers cost: the same images through both networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convship.batches import batches, store
from convship.bundle import PrecisionTest
from convship.data import Images
from convship.errors import ExportError
from convship.golden import Golden, NetworkInput, largest_difference, run_network
from convship.preprocess import Preprocess

_BATCH = 256
# Of an output's largest value. Networks that were trained stay far below it.
_MOST_CHANGE = 0.2


def compare(network: nn.Module, narrowed: nn.Module, goldens: Sequence[Golden]) -> PrecisionTest:
    """Return how many of the samples both networks give the same class."""
    before, after = (
        torch.cat([_named(each, golden.inputs) for golden in goldens])
        for each in (network, narrowed)
    )
    return PrecisionTest(images=len(before), agreement=_share(before == after))


def compare_on(
    network: nn.Module, narrowed: nn.Module, test: Images, preprocess: nn.Module
) -> PrecisionTest:
    """Return how often both networks name the same class of `test`, and how often the right one.

    Raises:
        ExportError: `preprocess` is not a `convship.Preprocess`, which tells the size of images.
    """
    if not isinstance(preprocess, Preprocess):
        raise ExportError(
            "export_model: test needs preprocess to be a convship.Preprocess, got "
            f"{type(preprocess).__name__}"
        )
    if len(test) == 0:
        raise ExportError("export_model: test must hold at least one image, got none")
    prepared = store(test, preprocess)
    order = torch.arange(len(prepared.targets))
    parts = [
        (*(_named(each, {"input": inputs}) for each in (network, narrowed)), targets)
        for inputs, targets in batches(prepared, order, _BATCH, preprocess)
    ]
    before, after, targets = (torch.cat(each) for each in zip(*parts, strict=True))
    return PrecisionTest(
        images=len(targets),
        agreement=_share(before == after),
        top1=_share(after == targets),
        top1_float32=_share(before == targets),
    )


def check_accuracy(precision: str, result: PrecisionTest, most: float) -> None:
    """Raise ExportError where accuracy fell by more than `most`, a share of the images."""
    if result.top1 is None or result.top1_float32 is None:
        lost, what = 1 - result.agreement, "disagreement with float32"
    else:
        lost, what = result.top1_float32 - result.top1, "loss of top-1 accuracy"
    if lost > most:
        raise ExportError(
            f"export_model: {what} in {precision} must be at most {100 * most:.3g} points, got "
            f"{100 * lost:.3g} on {result.images} images; calibrate on more images, or raise "
            "max_accuracy_drop"
        )


def check_change(network: nn.Module, narrowed: nn.Module, goldens: Sequence[Golden]) -> None:
    """Raise ExportError where an output of a sample becomes another one altogether."""
    for index, golden in enumerate(goldens):
        before, after = (run_network(each, golden.inputs, False) for each in (network, narrowed))
        for name, value in before.items():
            if not value.is_floating_point() or value.numel() == 0:
                continue
            largest = max(float(value.abs().max()), torch.finfo(torch.float32).tiny)
            share = largest_difference(after.get(name), value) / largest
            if share > _MOST_CHANGE:
                raise ExportError(
                    f"export_model: rounding must change output '{name}' by at most "
                    f"{100 * _MOST_CHANGE:.0f} % of its largest value, got {100 * share:.3g} % in "
                    f"sample {index}; calibrate on more samples, or take a wider precision"
                )


def _named(network: nn.Module, inputs: NetworkInput) -> Tensor:
    return run_network(network, inputs, classifier=True)["logits"].argmax(1)


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
