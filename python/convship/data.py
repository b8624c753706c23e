"""Named data sets: labelled images, as files or tensors, split into train and test.

A `DataSet` says what there is; `convship.batches` decodes it once and hands out batches.

The digits that come with the package are the test part of "Optical Recognition of Handwritten
Digits" (E. Alpaydin, C. Kaynak, 1998, UCI Machine Learning Repository, CC BY 4.0), 1797 images of
8x8, taken from scikit-learn's copy (BSD 3-Clause); grey levels 0..16 were scaled to 0..255.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convship.errors import ImageError

__all__ = [
    "DATA_NAMES",
    "DataSet",
    "FileImages",
    "Images",
    "TensorImages",
    "UserImages",
    "from_datasets",
    "load_data",
    "read_image",
]

DATA_NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "fake", "folder:PATH")
HELD_OUT = 0.2  # fraction of every class that becomes the test part where none is given
_SUFFIXES = (".jpg", ".jpeg", ".png")
_SPLIT_SEED = 20240229  # one fixed split of the digits, whatever seed a run has


class Images:
    """Labelled images; the base of the ways in which they are stored.

    Attributes:
        targets: int64 [N], the class of each image.
    """

    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Tensor:
        """Return one image, uint8 RGB [3, H, W].

        Raises:
            ImageError: The image cannot be decoded.
        """
        raise NotImplementedError

    def file(self, index: int) -> Path | None:
        """Return the file that holds the image, or None where it is in memory."""
        return None


@dataclass
class TensorImages(Images):
    """Images in memory, all of one size: uint8 [N, 1 or 3, H, W].

    Example:
        >>> images = TensorImages(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.zeros(5).long())
        >>> len(images), tuple(images.read(0).shape)
        (5, (3, 8, 8))
    """

    images: Tensor
    targets: Tensor

    def read(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


@dataclass
class FileImages(Images):
    """Image files, decoded when read.

    Example:
        >>> FileImages([Path("cat.jpg")], torch.tensor([0])).file(0).name
        'cat.jpg'
    """

    paths: list[Path]
    targets: Tensor

    def read(self, index: int) -> Tensor:
        return read_image(self.paths[index])

    def file(self, index: int) -> Path | None:
        return self.paths[index]


@dataclass
class UserImages(Images):
    """A map-style torch Dataset of (image, class) pairs.

    An image is a PIL image, a uint8 tensor [1 or 3, H, W] or a uint8 array [H, W] or [H, W, 3].
    Apply no augmentation or normalisation in it: training does both, on whole batches.

    Example:
        >>> pairs = [(Image.new("RGB", (8, 8)), 0), (Image.new("L", (8, 8)), 1)]
        >>> UserImages(pairs).targets
        tensor([0, 1])
    """

    dataset: Any
    targets: Tensor = field(init=False)

    def __post_init__(self) -> None:
        known = getattr(self.dataset, "targets", None)
        if known is None:  # only reading them all can tell
            known = [self.dataset[index][1] for index in range(len(self.dataset))]
        self.targets = torch.as_tensor(known).to(torch.int64)

    def read(self, index: int) -> Tensor:
        image = self.dataset[index][0]
        if isinstance(image, Image.Image):
            return _rgb(image)
        tensor = image if isinstance(image, Tensor) else torch.as_tensor(np.asarray(image))
        if not isinstance(image, Tensor):
            tensor = tensor.unsqueeze(0) if tensor.dim() == 2 else tensor.permute(2, 0, 1)
        if tensor.dtype != torch.uint8 or tensor.dim() != 3 or tensor.size(0) not in (1, 3):
            raise ValueError(
                "data: images of a Dataset must be PIL images or uint8 [1 or 3, H, W], "
                f"got {tensor.dtype} {list(tensor.shape)}; leave scaling to training"
            )
        return tensor.expand(3, -1, -1)


@dataclass
class DataSet:
    """Two parts of one set of labelled images.

    Attributes:
        name: As given to `load_data`.
        labels: Name of each class; `targets` index it.
        train: The part to learn from.
        test: The part to measure on.
        is_gray: Whether all images are gray, so that networks take one channel.
        size: Height and width in pixels where all images share them, else None.
    """

    name: str
    labels: list[str]
    train: Images
    test: Images
    is_gray: bool = False
    size: tuple[int, int] | None = None


def load_data(
    name: str = "digits",
    *,
    root: str | Path | None = None,
    download: bool = True,
    held_out: float = HELD_OUT,
    seed: int = 0,
) -> DataSet:
    """Return the data set called `name`; no image file is decoded yet.

    Args:
        name: "digits" (comes with the package), "mnist", "fashion-mnist", "cifar10" (downloaded
            once), "fake" (random images, for trials), or "folder:PATH": one folder of JPEG and PNG
            files per class, inside ``train/`` and ``test/``, or directly in PATH.
        root: Where downloads are kept; by default ``~/.cache/convship``.
        download: Whether a missing download may be fetched.
        held_out: For a folder without ``test/``: the fraction of every class to test on.
        seed: For a folder without ``test/``: which images those are.

    Raises:
        ValueError: An unknown name, a folder with fewer than two classes or an empty class.
        FileNotFoundError: The folder does not exist.
        OSError: The download failed.

    Example:
        >>> digits = load_data("digits")
        >>> len(digits.train), len(digits.test), digits.labels[:3]
        (1438, 359, ['0', '1', '2'])
    """
    if name.startswith("folder:"):
        return _folder(name, Path(name.removeprefix("folder:")), held_out, seed)
    if name == "digits":
        return _digits()
    if name == "fake":
        return _fake()
    if name in _DOWNLOADS:
        return _download(name, Path(root) if root else _cache_folder(), download)
    raise ValueError(f"data: unknown name {name!r}; known: {', '.join(DATA_NAMES)}")


def from_datasets(train: Any, test: Any, labels: Sequence[str], name: str = "custom") -> DataSet:
    """Return a `DataSet` of your own torch Datasets; see `UserImages` for what they yield.

    Args:
        train: Map-style Dataset of (image, class) pairs to learn from.
        test: The same, to measure on.
        labels: Name of each class.
        name: How reports call it.

    Raises:
        ValueError: A target is not an index into `labels`, or a part is empty.

    Example:
        >>> pairs = [(Image.new("RGB", (8, 8)), 0), (Image.new("RGB", (8, 8)), 1)]
        >>> from_datasets(pairs, pairs, ["cat", "dog"]).labels
        ['cat', 'dog']
    """
    parts = []
    for part, dataset in (("train", train), ("test", test)):
        images = UserImages(dataset)
        if len(images) == 0:
            raise ValueError(f"data: the {part} part of {name!r} is empty")
        low, high = int(images.targets.min()), int(images.targets.max())
        if low < 0 or high >= len(labels):
            raise ValueError(
                f"data: targets of the {part} part must be 0..{len(labels) - 1}, one per label, "
                f"got {low}..{high}"
            )
        parts.append(images)
    sample = range(0, len(parts[0]), max(1, len(parts[0]) // 16))
    shapes = [parts[0].read(index).shape for index in sample]
    sizes = {(height, width) for _, height, width in shapes}
    size = sizes.pop() if len(sizes) == 1 else None
    return DataSet(name, list(labels), parts[0], parts[1], size=size)


def read_image(path: str | Path) -> Tensor:
    """Decode a JPEG or PNG file to uint8 RGB [3, H, W], as Pillow's ``convert("RGB")``.

    Raises:
        ImageError: The file is missing, truncated or not an image; the message names it.

    Example:
        >>> read_image("missing.jpg")
        Traceback (most recent call last):
        convship.errors.ImageError: missing.jpg: no such image file
    """
    try:
        with Image.open(path) as image:
            return _rgb(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow repeats the path, or prints a buffer's address, when it knows no format.
        unknown = "cannot identify" in str(error)
        reason = "not an image, or of an unknown format" if unknown else str(error)
        raise ImageError(f"{path}: cannot be read as an image: {reason}") from None


def _rgb(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _digits() -> DataSet:
    with np.load(Path(__file__).parent / "assets" / "digits.npz") as content:
        images, targets = content["images"], content["targets"]
    everything = TensorImages(
        torch.from_numpy(images).unsqueeze(1), torch.from_numpy(targets).to(torch.int64)
    )
    kept, held = split_by_class(everything.targets, HELD_OUT, _SPLIT_SEED)
    train, test = (
        TensorImages(everything.images[part], everything.targets[part]) for part in (kept, held)
    )
    return DataSet("digits", [str(digit) for digit in range(10)], train, test, True, (8, 8))


def _fake() -> DataSet:
    """Random RGB images of 4 classes, told apart by their brightness."""
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    parts = []
    for count in (256, 64):
        targets = torch.arange(count) % 4
        noise = torch.randint(0, 64, (count, 3, 32, 32), generator=generator)
        parts.append(TensorImages((noise + 60 * targets.view(-1, 1, 1, 1)).byte(), targets))
    return DataSet("fake", ["black", "dark", "light", "white"], parts[0], parts[1], False, (32, 32))


# torchvision's class, whether gray, height and width in pixels
_DOWNLOADS = {
    "mnist": ("MNIST", True, 28),
    "fashion-mnist": ("FashionMNIST", True, 28),
    "cifar10": ("CIFAR10", False, 32),
}


def _download(name: str, root: Path, download: bool) -> DataSet:
    from convship._torchvision import torchvision

    kind, is_gray, size = _DOWNLOADS[name]
    parts = []
    for train in (True, False):
        try:
            with _alone_in(root):
                stored = getattr(torchvision.datasets, kind)(root, train=train, download=download)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OSError(
                f"data: {name} is neither in {root} nor could it be downloaded: {reason}"
            ) from error
        images = torch.as_tensor(stored.data)
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        parts.append(TensorImages(images.contiguous(), torch.as_tensor(stored.targets)))
    return DataSet(name, list(stored.classes), parts[0], parts[1], is_gray, (size, size))


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep the other processes of torchrun from the folder, which all of them would unpack to."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing needs the lock
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / ".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        yield


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convship"


def _folder(name: str, root: Path, held_out: float, seed: int) -> DataSet:
    if not root.is_dir():
        raise FileNotFoundError(f"data: folder {root} does not exist")
    if (root / "train").is_dir() and (root / "test").is_dir():
        labels, paths, targets = scan_folder(root / "train")
        train = FileImages(paths, targets)
        test_labels, paths, targets = scan_folder(root / "test")
        if test_labels != labels:
            differing = sorted(set(labels) ^ set(test_labels))
            raise ValueError(
                f"data: {root}: train/ and test/ must have the same class folders, "
                f"only one of them has {', '.join(differing)}"
            )
        test = FileImages(paths, targets)
    else:
        labels, paths, targets = scan_folder(root)
        kept, held = split_by_class(targets, held_out, seed)
        train, test = (
            FileImages([paths[index] for index in part.tolist()], targets[part])
            for part in (kept, held)
        )
    return DataSet(name, labels, train, test, *_probe(train.paths))


def scan_folder(root: Path) -> tuple[list[str], list[Path], Tensor]:
    """Return class names, image files and their classes, int64 [N], sorted by name."""
    labels = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    labels = [label for label in labels if not label.startswith(".")]
    if len(labels) < 2:
        raise ValueError(
            f"data: {root} must hold at least 2 class folders with images, "
            f"got {len(labels)}{f' ({labels[0]})' if labels else ''}"
        )
    paths: list[Path] = []
    targets: list[int] = []
    for index, label in enumerate(labels):
        with os.scandir(root / label) as entries:
            names = sorted(e.name for e in entries if e.name.lower().endswith(_SUFFIXES))
        if not names:
            raise ValueError(f"data: class folder {root / label} holds no JPEG or PNG file")
        paths += [root / label / file for file in names]
        targets += [index] * len(names)
    return labels, paths, torch.tensor(targets)


def split_by_class(targets: Tensor, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return indices of the kept and the held-out images, the same fraction of every class."""
    if not 0 < held_out < 1:
        raise ValueError(f"data: held_out must be between 0 and 1, got {held_out}")
    generator = torch.Generator().manual_seed(seed)
    kept, held = [], []
    for label in targets.unique().tolist():
        members = (targets == label).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(
                f"data: class {label} has 1 image, 2 are needed to hold one out for testing"
            )
        members = members[torch.randperm(len(members), generator=generator)]
        count = min(max(1, round(len(members) * held_out)), len(members) - 1)
        held.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def _probe(paths: list[Path]) -> tuple[bool, tuple[int, int] | None]:
    """Return whether a sample of files is gray, and the (height, width) they share."""
    step = max(1, len(paths) // 64)
    modes, sizes = set(), set()
    for path in paths[::step]:
        try:
            with Image.open(path) as image:  # reads the header only
                modes.add(image.mode)
                sizes.add((image.height, image.width))
        except (OSError, SyntaxError):
            continue  # decoding reports it, by name
    return modes <= {"L", "1"} and bool(modes), sizes.pop() if len(sizes) == 1 else None
