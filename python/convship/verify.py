"""Same answers? One file through three implementations, compared stage by stage.

R is torch as it is (`torch.jit.load`, Pillow), P is `convship.load` in this process, N is the
native program `convship-run`.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from convship.bundle import GOLDENS, MANIFEST, PREPROCESS, Manifest, flatten, inspect, read_extras
from convship.errors import ImageError, ModelFileError
from convship.golden import largest_difference, probabilities
from convship.model import Model, load

__all__ = ["StageResult", "VerifyReport", "as_table", "verify_model"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# By exit code of the native program.
_ERRORS: dict[int, type[Exception]] = {2: ValueError, 3: ModelFileError, 4: ImageError}
# The native program writes every stage to disk; this bounds how much at a time.
_CHUNK = 200

Stages = dict[str, Tensor]


@dataclass
class StageResult:
    """One stage over all inputs.

    Attributes:
        stage: "decode", "preprocess", "output NAME" or "probabilities".
        tolerance: Largest difference allowed between R and N; 0 asks for equal bits.
        python_native: Largest absolute difference between P and N, which must be 0.
        reference_native: Largest absolute difference between R and N.
        first_difference: The first input on which the stage fails.
    """

    stage: str
    tolerance: float
    python_native: float = 0.0
    reference_native: float = 0.0
    first_difference: str | None = None

    @property
    def passed(self) -> bool:
        return self.first_difference is None


@dataclass
class VerifyReport:
    """What `verify_model` found; `passed` says whether all is as it should be."""

    model: str
    backend: str
    threads: int
    inputs: int = 0
    stages: list[StageResult] = field(default_factory=list)
    top1_agreement: float | None = None

    @property
    def passed(self) -> bool:
        return bool(self.stages) and all(stage.passed for stage in self.stages)

    @property
    def first_difference(self) -> StageResult | None:
        """The first stage that differs; later ones follow from it."""
        return next((stage for stage in self.stages if not stage.passed), None)

    def to_json(self) -> str:
        stages = [{**asdict(stage), "passed": stage.passed} for stage in self.stages]
        for stage in stages:  # JSON has no infinity; as the native program writes it
            for column in ("python_native", "reference_native"):
                stage[column] = stage[column] if math.isfinite(stage[column]) else None
        return json.dumps({**asdict(self), "passed": self.passed, "stages": stages})


def verify_model(
    path: str | Path,
    images: Sequence[str | Path] = (),
    *,
    backend: Literal["convship", "libtorch"] = "convship",
    threads: int | None = None,
) -> VerifyReport:
    """Compare the three implementations on the goldens in the file and on `images`.

    P must equal N bit for bit in every stage. R must equal N bit for bit in decoding and
    preprocessing, and with `backend="libtorch"` in every stage; otherwise R may differ from N by
    the tolerance in the manifest.

    Args:
        path: A file that `export_model` wrote.
        images: JPEG and PNG files, and folders of them; for classifiers of images.
        backend: How P and N run the network; see `convship.load`.
        threads: Threads inside one call, for all three; torch's setting where None.

    Raises:
        FileNotFoundError, ModelFileError: There is no such file, or it is no convship model.
        ImageError: An image cannot be decoded.
        ValueError: Images were given for a network that does not take any.

    Example:
        >>> import convship, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/net.pt"
        ...     network = torch.nn.Linear(3, 2)
        ...     _ = convship.export_model(network, path, samples=[torch.rand(1, 3)])
        ...     report = convship.verify_model(path)
        >>> report.passed, report.stages[0].stage, report.stages[0].python_native
        (True, 'output output', 0.0)
    """
    path = Path(path)
    extras = read_extras(path)
    manifest = Manifest.model_validate_json(extras[MANIFEST])
    goldens = load_safetensors(extras[GOLDENS])
    if threads is not None:
        torch.set_num_threads(threads)
    columns = _Columns(path, load(path, backend=backend), backend, torch.get_num_threads())
    report = VerifyReport(str(path), backend, columns.threads)
    results = _Results(manifest, backend, report)
    with tempfile.TemporaryDirectory(prefix="convship-verify-") as name:
        folder = Path(name)
        if manifest.task == "classification":
            files = golden_files(goldens, manifest.goldens, folder) + image_files(images)
            for each in columns.of_images(files, folder):
                results.add(*each)
        elif images:
            raise ValueError(
                f"verify_model: {path} is no classifier of images, so it takes no images"
            )
        else:
            for each in columns.of_tensors(goldens, manifest, folder):
                results.add(*each)
    results.finish()
    return report


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return files as given, and .jpg, .jpeg and .png files of folders in sorted order.

    Raises:
        ImageError: There is no such file, or a folder holds no image.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            files.append(path)
            continue
        if not path.is_dir():
            raise ImageError(f"{path}: no such image file or folder")
        # As the native program lists them.
        found = sorted(
            f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()
        )
        if not found:
            raise ImageError(f"{path}: no .jpg, .jpeg or .png file in this folder")
        files.extend(found)
    return files


def native_program() -> Path:
    """Return the path of `convship-run`: beside this Python's scripts, else on the PATH.

    Raises:
        FileNotFoundError: It is not installed.
    """
    beside = Path(sysconfig.get_path("scripts")) / "convship-run"
    found = str(beside) if beside.is_file() else shutil.which("convship-run")
    if found is None:
        raise FileNotFoundError("convship-run is not installed; reinstall convship")
    return Path(found)


def run_native(verb: str, *arguments: str | Path) -> str:
    """Run `convship-run` and return what it printed; its errors become exceptions of their kind."""
    process = subprocess.run(
        [native_program(), verb, *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        message = process.stderr.strip().removeprefix("convship-run: ")
        kind = _ERRORS.get(process.returncode, OSError)
        raise kind(message or f"convship-run ended with code {process.returncode}")
    return process.stdout


class _Package:
    """A .pt2 file with the methods of a .pt file, as LibTorch's own loader runs it."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        from torch._inductor import aoti_load_package

        self._network = aoti_load_package(str(path))
        self._outputs = [spec.name for spec in manifest.outputs]
        self._classifier = manifest.task == "classification"
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(f"/{PREPROCESS}")]
            data = io.BytesIO(archive.read(inside[0])) if inside else None
        self.preprocess: Any = torch.jit.load(data).eval() if data else None

    def __call__(self, *inputs: Tensor) -> Any:
        found = self._network(*inputs)
        if self._classifier:
            return found
        values = [found] if isinstance(found, Tensor) else found
        return dict(zip(self._outputs, values, strict=True))

    def predict(self, images: Tensor) -> Tensor:
        return probabilities(self(self.preprocess(images)))


def open_in_torch(path: Path) -> Any:
    """Return a shipped file as torch opens it: a function of tensors, with the file's methods."""
    manifest = inspect(path)
    if manifest.compiled_for is not None:
        return _Package(path, manifest)
    return torch.jit.load(str(path)).eval()


@dataclass
class _Columns:
    """R, P and N for one file."""

    path: Path
    python: Model
    backend: str
    threads: int

    def __post_init__(self) -> None:
        self.reference = open_in_torch(self.path)

    def of_images(
        self, files: list[Path], folder: Path
    ) -> Iterator[tuple[str, Stages, Stages, Stages]]:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            for file, native in zip(chunk, self._native_images(chunk, folder), strict=True):
                yield str(file), self._reference_image(file), self.python.stages(file), native

    def of_tensors(
        self, goldens: Mapping[str, Tensor], manifest: Manifest, folder: Path
    ) -> Iterator[tuple[str, Stages, Stages, Stages]]:
        for index in range(manifest.goldens):
            inputs = {spec.name: goldens[f"{index}.input.{spec.name}"] for spec in manifest.inputs}
            with torch.inference_mode():
                result = self.reference(*(value.clone() for value in inputs.values()))
            yield (
                f"golden {index}",
                {f"output.{name}": value for name, value in flatten(result)},
                {f"output.{name}": value for name, value in self.python.run(**inputs).items()},
                self._native_tensors(inputs, folder),
            )

    def _reference_image(self, file: Path) -> Stages:
        try:
            with Image.open(file) as image:
                rgb = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ImageError(f"{file}: Pillow cannot read it ({error})") from error
        pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1).contiguous()
        with torch.inference_mode():
            batch = pixels.unsqueeze(0)
            preprocessed = self.reference.preprocess(batch)
            logits = self.reference(preprocessed)
            return {
                "pixels": pixels,
                "preprocessed": preprocessed,
                "output.logits": logits,
                "probabilities": self.reference.predict(batch),
            }

    def _run_native(self, verb: str, *arguments: str | Path) -> str:
        settings = ("--threads", str(self.threads), "--backend", self.backend)
        return run_native(verb, *settings, *arguments)

    def _native_images(self, files: list[Path], folder: Path) -> Iterator[Stages]:
        output = folder / "stages"
        lines = self._run_native("stages", "--output", output, "--", self.path, *files)
        with output.open("rb") as stream:
            for line in lines.splitlines():
                yield {
                    each["name"]: _from_numpy(np.load(stream), each["dtype"])
                    for each in json.loads(line)["arrays"]
                }

    def _native_tensors(self, inputs: Mapping[str, Tensor], folder: Path) -> Stages:
        arguments = []
        for index, (name, value) in enumerate(inputs.items()):
            np.save(folder / f"in{index}.npy", _to_numpy(value))
            arguments.append(f"{name}={folder / f'in{index}.npy'}")
        lines = self._run_native(
            "run", "--json", "--output", folder / "out", "--", self.path, *arguments
        )
        return {
            f"output.{each['name']}": _from_numpy(np.load(each["path"]), each["dtype"])
            for each in json.loads(lines)["outputs"]
        }


# NumPy has no bfloat16; the native program reads and writes its bits as uint16.
def _from_numpy(array: np.ndarray[Any, Any], dtype: str) -> Tensor:
    return torch.from_numpy(array).view(getattr(torch, dtype))


def _to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.numpy()


class _Results:
    """Collects differences per stage."""

    def __init__(self, manifest: Manifest, backend: str, report: VerifyReport) -> None:
        self._tolerances = {"pixels": 0.0, "preprocessed": 0.0}
        for name, tolerance in manifest.tolerances.outputs.items():
            self._tolerances[f"output.{name}"] = tolerance
        self._tolerances["probabilities"] = manifest.tolerances.probabilities
        if backend == "libtorch":
            self._tolerances = dict.fromkeys(self._tolerances, 0.0)
        self._stages: dict[str, StageResult] = {}
        self._agreed = 0
        self._compared = 0
        self._report = report

    def add(self, subject: str, reference: Stages, python: Stages, native: Stages) -> None:
        self._report.inputs += 1
        for key in {**reference, **python, **native}:
            stage = self._stages.setdefault(
                key, StageResult(_stage_name(key), self._tolerances.get(key, 0.0))
            )
            p = largest_difference(python.get(key), native.get(key, torch.empty(0)))
            r = largest_difference(reference.get(key), native.get(key, torch.empty(0)))
            stage.python_native = max(stage.python_native, p)
            stage.reference_native = max(stage.reference_native, r)
            same_bits = _same_bits(python.get(key), native.get(key)) and (
                stage.tolerance > 0 or _same_bits(reference.get(key), native.get(key))
            )
            if (not same_bits or r > stage.tolerance) and stage.first_difference is None:
                stage.first_difference = subject
        if "probabilities" in reference:
            self._compared += 1
            top = [int(each["probabilities"].argmax()) for each in (reference, native)]
            self._agreed += top[0] == top[1]

    def finish(self) -> None:
        self._report.stages = list(self._stages.values())
        if self._compared:
            self._report.top1_agreement = self._agreed / self._compared


def _stage_name(key: str) -> str:
    names = {"pixels": "decode", "preprocessed": "preprocess"}
    return names.get(key, key.replace("output.", "output ", 1))


def _same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)
    )


def golden_files(goldens: Mapping[str, Tensor], count: int, folder: Path) -> list[Path]:
    """Write the goldens' images out: as they came, or as PNG where only pixels are stored."""
    files: list[Path] = []
    for index in range(count):
        path = folder / f"golden {index}"
        if (encoded := goldens.get(f"{index}.file")) is not None:
            path.write_bytes(bytes(encoded.numpy()))
        else:
            pixels = goldens[f"{index}.pixels"].permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(pixels).save(path, format="PNG")
        files.append(path)
    return files


def as_table(report: VerifyReport) -> str:
    """Return the report for people: a line per stage, then the verdict.

    Example:
        >>> as_table(VerifyReport("m.pt", "convship", threads=2)).splitlines()[-1]
        'nothing was compared'
    """
    lines = [
        f"{report.inputs} inputs, backend {report.backend}, {report.threads} threads; "
        "P convship in Python, N native, R torch as it is",
        f"{'stage':<22}{'|P - N|':>12}{'|R - N|':>12}{'tolerance':>12}",
    ]
    lines += [
        f"{s.stage:<22}{s.python_native:>12.3g}{s.reference_native:>12.3g}{s.tolerance:>12.3g}"
        f"  {'ok' if s.passed else 'DIFFERS'}"
        for s in report.stages
    ]
    if report.top1_agreement is not None:
        lines.append(f"top-1 agreement of R and N: {100 * report.top1_agreement:.2f} %")
    if not report.stages:
        lines.append("nothing was compared")
    elif (first := report.first_difference) is None:
        lines.append("same answers")
    else:
        error = max(first.python_native, first.reference_native)
        lines.append(
            f"first difference: {first.stage}, on {first.first_difference}, up to {error:.3g}"
        )
    return "\n".join(lines)
