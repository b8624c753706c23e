"""A shipped model as a callable class for `ray.data.Dataset.map_batches`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convship.errors import ImageError
from convship.extras import import_extra
from convship.model import Model, load, load_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ERROR", "PREDICTIONS", "Predictor", "import_pyarrow"]

PREDICTIONS, ERROR = "predictions", "prediction_error"


class Predictor:
    """Adds predictions to tables of encoded images; a worker holds one.

    A row with an image that cannot be read gets an error instead: one damaged file among millions
    stops nothing.

    Args:
        model: A file that `export_model` wrote, or its bytes.
        column: Name of the column of encoded images: binary, or the struct of ``bytes`` and
            ``path`` that Hugging Face's data sets have.
        top_k: How many classes, best first.
        threads: Threads inside one call, for this process; None leaves torch's number.

    Raises:
        ModelFileError: The file is damaged or of another kind.
        ValueError: It classifies no images, or `top_k` is below 1.

    Example:
        >>> import ray  # doctest: +SKIP
        >>> ray.data.read_binary_files("images", include_paths=True).map_batches(
        ...     Predictor, fn_constructor_args=["model.pt"], batch_format="pyarrow", concurrency=2
        ... ).drop_columns(["bytes"]).write_parquet("predictions")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        column: str = "bytes",
        top_k: int = 1,
        threads: int | None = 1,
    ) -> None:
        if top_k < 1:
            raise ValueError(f"Predictor: top_k must be at least 1, got {top_k}")
        if threads is not None:
            torch.set_num_threads(threads)
        self.model: Model = load_bytes(model) if isinstance(model, bytes) else load(model)
        if not self.model.labels:
            raise ValueError("Predictor: the model is no classifier of images")
        self.column = column
        self.top_k = top_k

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return `batch` with two columns more.

        Returns:
            "predictions": list of {label: string, index: int32, probability: float}, best first,
            null where there is an error; "prediction_error": string, null where there is none.

        Raises:
            TypeError: `batch` is no pyarrow table.
            ValueError: The column of images is missing, or one of the new ones exists.
        """
        pa = import_pyarrow()
        if not isinstance(batch, pa.Table):
            raise TypeError(
                "Predictor: batches must be pyarrow tables (batch_format='pyarrow'), got "
                f"{type(batch).__name__}"
            )
        names = batch.column_names
        if self.column not in names:
            raise ValueError(f"Predictor: no column {self.column!r}; there are {', '.join(names)}")
        if taken := {PREDICTIONS, ERROR} & set(names):
            raise ValueError(f"Predictor: there is a column {', '.join(sorted(taken))} already")
        answers = [self._answer(image) for image in batch[self.column].to_pylist()]
        fields = [("label", pa.string()), ("index", pa.int32()), ("probability", pa.float32())]
        kind = pa.list_(pa.struct(fields))
        predictions = pa.array([predictions for predictions, _ in answers], kind)
        errors = pa.array([error for _, error in answers], pa.string())
        return batch.append_column(PREDICTIONS, predictions).append_column(ERROR, errors)

    def _answer(self, image: Any) -> tuple[list[dict[str, Any]] | None, str | None]:
        if isinstance(image, dict):
            image = image.get("bytes")
        if not isinstance(image, bytes):
            return None, f"no encoded image but {type(image).__name__}"
        try:
            found = self.model.predict(image, self.top_k)
        except ImageError as error:
            return None, str(error)
        return [
            {"label": p.label, "index": p.index, "probability": p.probability} for p in found
        ], None


def import_pyarrow() -> Any:
    """Return `pyarrow`.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to.

    Example:
        >>> import_pyarrow().__name__  # doctest: +SKIP
        'pyarrow'
    """
    return import_extra("pyarrow", name="pyarrow", extra="ray", verb="predict")
