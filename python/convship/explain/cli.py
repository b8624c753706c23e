"""The verb `convship explain`: arguments in, calls out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# As in convship.cli, nothing heavy up here.


def explain(
    model: Annotated[Path, typer.Argument(help="a shipped file of a classifier")],
    image: Annotated[Path, typer.Argument(help="JPEG or PNG")],
    out: Annotated[Path, typer.Option(help="the picture, PNG")] = Path("explain.png"),
    label: Annotated[
        str | None, typer.Option("--class", help="its label; default: the most probable")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="integrated-gradients, grad-cam, occlusion, with commas")
    ] = "integrated-gradients,grad-cam,occlusion",
    baseline: Annotated[
        str, typer.Option(help="what stands for nothing: mean, black or white")
    ] = "mean",
    steps: Annotated[int, typer.Option(help="of integrated gradients", min=1)] = 64,
    window: Annotated[
        int | None, typer.Option(help="that occlusion covers, pixels; default: an eighth", min=1)
    ] = None,
) -> None:
    """Draw what in an image speaks for its class: attribution maps by Captum."""
    from convship.explain.explanation import explain_image
    from convship.explain.picture import draw_explanation

    found = explain_image(
        model,
        image,
        label=label,
        methods=[name.strip() for name in methods.split(",")],
        baseline=baseline,
        steps=steps,
        window=window,
    )
    draw_explanation(found, out)
    print(f"{found.label}, {100 * found.probability:.2f} %: {out}")
    if found.completeness_error is not None:
        rise = found.logit - found.baseline_logit
        print(
            f"integrated gradients: the logit rises by {rise:.3f} from {baseline} to the image, "
            f"the map sums up to {rise + found.completeness_error:.3f}"
        )
    if found.feature_map is not None:
        print("Grad-CAM: feature map of {}x{}".format(*found.feature_map))
