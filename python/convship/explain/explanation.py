"""One image, one class, and a map per method of what in the image speaks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from convship.explain.attribution import (
    grad_cam,
    import_captum,
    integrated_gradients,
    occlusion,
)
from convship.explain.classifier import Classifier, Input, open_classifier

__all__ = ["METHODS", "Explanation", "explain_image"]

METHODS = ("integrated-gradients", "grad-cam", "occlusion")


@dataclass
class Explanation:
    """What `explain_image` found.

    Attributes:
        label: Name of the class that is explained.
        index: Its index.
        probability: What the network gives it, 0..1.
        top_label: The most probable class; the same unless another was asked for.
        top_probability: Its probability.
        picture: float32 [C, S, S] in [0, 1]: the image as the network sees it.
        maps: float32 [S, S] by method, in logits of the class: positive speaks for it. The values
            of integrated gradients add up to `logit` - `baseline_logit`, those of Grad-CAM
            have no unit and are never negative.
        logit: Of the class, for the image.
        baseline_logit: The same for the baseline.
        completeness_error: What the sum of the integrated gradients misses, in logits; None
            without them.
        feature_map: Height and width of the map that Grad-CAM looked at; None without it.
    """

    label: str
    index: int
    probability: float
    top_label: str
    top_probability: float
    picture: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)
    logit: float = 0.0
    baseline_logit: float = 0.0
    completeness_error: float | None = None
    feature_map: tuple[int, int] | None = None


def explain_image(
    model: str | Path,
    image: str | Path | bytes,
    *,
    label: str | None = None,
    methods: Sequence[str] = METHODS,
    baseline: str = "mean",
    steps: int = 64,
    window: int | None = None,
) -> Explanation:
    """Tell what in an image speaks for a class.

    The network is the one in the file, as torch runs it: the same layers and weights that the
    native program runs.

    Args:
        model: A file that `export_model` wrote, of a classifier.
        image: Path of a JPEG or PNG file, or the bytes of one.
        label: Name of the class; None for the most probable one.
        methods: Some of "integrated-gradients", "grad-cam", "occlusion".
        baseline: What stands for nothing: "mean", the mean colour of the network's input;
            "black" or "white". Grad-CAM needs none.
        steps: Points of the path of integrated gradients.
        window: Side of the square that occlusion covers, in pixels of the network's input; None
            for an eighth of it.

    Raises:
        FileNotFoundError, ModelFileError: There is no such file, or it is no convship model.
        ImageError: The image cannot be read or decoded.
        ValueError: The file is no classifier; unknown names; a network without gradients or
            feature map.
        ModuleNotFoundError: Captum is not installed.

    Example:
        >>> import convship, tempfile
        >>> from PIL import Image
        >>> from convship.models import LeNet5
        >>> pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
        >>> preprocess = convship.Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, image = f"{folder}/net.pt", f"{folder}/image.png"
        ...     Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(image)
        ...     _ = convship.export_model(
        ...         LeNet5(2), path, samples=[image], preprocess=preprocess, labels=["a", "b"])
        ...     found = explain_image(path, image, label="b")
        >>> found.label, sorted(found.maps)
        ('b', ['grad-cam', 'integrated-gradients', 'occlusion'])
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ValueError(
            f"explain: methods must be some of {', '.join(METHODS)}, got {', '.join(unknown)}"
        )
    if steps < 1:
        raise ValueError(f"explain: steps must be at least 1, got {steps}")
    import_captum()
    classifier = open_classifier(model)
    read = classifier.read(image, baseline)
    found = _classify(classifier, read, label)
    if set(methods) & {"integrated-gradients", "grad-cam"}:
        classifier.check_differentiable(read.tensor)
    for name in dict.fromkeys(methods):
        found.maps[name] = _map(classifier, read, found, name, steps, window)
    return found


def _classify(classifier: Classifier, read: Input, label: str | None) -> Explanation:
    with torch.no_grad():
        logits = classifier(torch.cat([read.tensor, read.baseline])).float()
    probabilities = torch.softmax(logits[0], 0)
    top = int(probabilities.argmax())
    labels = classifier.labels
    if label is not None and label not in labels:
        raise ValueError(f"explain: unknown class {label!r}; known: {', '.join(labels)}")
    index = top if label is None else labels.index(label)
    return Explanation(
        labels[index],
        index,
        float(probabilities[index]),
        labels[top],
        float(probabilities[top]),
        read.picture,
        logit=float(logits[0, index]),
        baseline_logit=float(logits[1, index]),
    )


def _map(
    classifier: Classifier,
    read: Input,
    found: Explanation,
    name: str,
    steps: int,
    window: int | None,
) -> Tensor:
    inputs, baseline, target = read.tensor, read.baseline, found.index
    if name == "integrated-gradients":
        attributions, error = integrated_gradients(
            classifier, inputs, baseline, target, steps=steps
        )
        found.completeness_error = error
        return attributions.sum(1)[0]
    if name == "grad-cam":
        cam = grad_cam(classifier, inputs, target)
        found.feature_map = (cam.shape[2], cam.shape[3])
        return F.interpolate(cam, inputs.shape[2:], mode="bilinear")[0, 0]
    side = window or max(1, min(inputs.shape[2:]) // 8)
    return occlusion(classifier, inputs, baseline, target, window=side)[0, 0]
