"""From a data set's images to batches of network inputs.

A small set is decoded once and kept as uint8, so that training never waits for the image library;
a large one streams through DataLoader workers. Both give blocks of uint8 images, and everything
after that (augmentation, normalisation, slicing) is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convship.augment import ALONE, Augment, Share
from convship.data import Images, TensorImages
from convship.errors import ImageError
from convship.preprocess import Preprocess

__all__ = ["CachedImages", "ImageStore", "StreamedImages", "available_cpus", "batches", "store"]

CACHE_LIMIT_BYTES = 2 << 30  # larger than this streams
_BLOCK_IMAGES = 1024  # augmented and normalised at once: amortises the calls of small batches
_CHUNK_BYTES = 2 << 20  # from worker to parent; containers often have 64 MB of shared memory
_FEW_FILES = 1000  # below that, starting workers costs more than it saves


class ImageStore(Protocol):
    """What batches are made of: resized uint8 images, by index."""

    targets: Tensor

    def blocks(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 [B, C, S, S], int64 [B]) for `order`, `size` images at a time."""


class CachedImages:
    """All images decoded and resized once: uint8 [N, C, S, S].

    Raises:
        ImageError: A file cannot be decoded; the message names it.

    Example:
        >>> from convship.data import load_data
        >>> preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> CachedImages(load_data("digits").test, preprocess).images.shape
        torch.Size([359, 1, 32, 32])
    """

    def __init__(self, source: Images, preprocess: Preprocess, workers: int | None = None) -> None:
        self.targets = source.targets
        shape = (len(source), preprocess.channels, preprocess.height, preprocess.width)
        self.images = torch.empty(shape, dtype=torch.uint8)
        if isinstance(source, TensorImages):
            workers = 0
        if workers is None:
            workers = 0 if len(source) < _FEW_FILES else available_cpus()
        reader = StreamedImages(source, preprocess, workers)
        start = 0
        for images, _ in reader.blocks(torch.arange(len(source)), reader.chunk):
            self.images[start : start + len(images)] = images
            start += len(images)

    def blocks(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for part in order.split(size):
            # index_select copies whole images; images[part] would go element by element.
            yield self.images.index_select(0, part), self.targets[part]


class StreamedImages:
    """Images decoded and resized each time they are asked for, by DataLoader workers.

    Raises:
        ImageError: A file cannot be decoded; the message names it.

    Example:
        >>> from convship.data import load_data
        >>> preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> stream = StreamedImages(load_data("digits").test, preprocess, workers=0)
        >>> [len(images) for images, _ in stream.blocks(torch.arange(10), 4)]
        [4, 4, 2]
    """

    def __init__(self, source: Images, preprocess: Preprocess, workers: int | None = None) -> None:
        self.targets = source.targets
        self.source = source
        self.preprocess = preprocess
        self.workers = available_cpus() if workers is None else workers
        image_bytes = preprocess.channels * preprocess.height * preprocess.width
        self.chunk = min(1024, max(1, _CHUNK_BYTES // image_bytes))

    def blocks(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = list(order.split(size))
        loader: DataLoader[Tensor | str] = DataLoader(
            _Blocks(self.source, self.preprocess, parts),
            batch_size=None,
            num_workers=min(self.workers, len(parts)),
            # Order and augmentation come from our generator; the global one stays untouched.
            generator=torch.Generator().manual_seed(0),
        )
        for part, images in zip(parts, loader, strict=True):
            if isinstance(images, str):
                raise ImageError(images)
            yield images, self.targets[part]


class _Blocks(Dataset[Tensor | str]):
    """Item i is block i. A bad image is an item too: exceptions of workers come as tracebacks."""

    def __init__(self, source: Images, preprocess: Preprocess, parts: list[Tensor]) -> None:
        self.source = source
        self.preprocess = preprocess
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return _read_block(self.source, self.parts[index], self.preprocess)
        except ImageError as error:
            return str(error)


def _read_block(source: Images, part: Tensor, preprocess: Preprocess) -> Tensor:
    if isinstance(source, TensorImages):
        images = source.images.index_select(0, part)
        return preprocess.resize(images.expand(-1, 3, -1, -1)).contiguous()
    images = torch.empty(
        (len(part), preprocess.channels, preprocess.height, preprocess.width), dtype=torch.uint8
    )
    by_shape: dict[torch.Size, tuple[list[int], list[Tensor]]] = {}
    for position, index in enumerate(part.tolist()):
        image = source.read(index)
        positions, same_shape = by_shape.setdefault(image.shape, ([], []))
        positions.append(position)
        same_shape.append(image)
    for positions, same_shape in by_shape.values():
        images[positions] = preprocess.resize(torch.stack(same_shape))
    return images


def store(
    source: Images,
    preprocess: Preprocess,
    *,
    cache: bool | None = None,
    workers: int | None = None,
) -> ImageStore:
    """Return `source` cached or streamed, whichever suits its size.

    Args:
        source: Images to decode.
        preprocess: Its `resize` makes them one size.
        cache: True keeps them in memory, False streams; None caches up to 2 GiB.
        workers: Worker processes; None for one per CPU.

    Example:
        >>> from convship.data import load_data
        >>> preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> type(store(load_data("digits").test, preprocess)).__name__
        'CachedImages'
    """
    if cache is None:
        image_bytes = preprocess.channels * preprocess.height * preprocess.width
        cache = len(source) * image_bytes <= CACHE_LIMIT_BYTES
    kind = CachedImages if cache else StreamedImages
    return kind(source, preprocess, workers)


def batches(
    images: ImageStore,
    order: Tensor,
    batch_size: int,
    preprocess: Preprocess,
    *,
    augment: Augment | None = None,
    generator: torch.Generator | None = None,
    share: Share = ALONE,
    device: torch.device | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (float32 [B, C, S, S], int64 [B]) for the images that `order` indexes.

    Args:
        images: Where the images are.
        order: int64 indices, in the order wanted.
        batch_size: B; the last batch may be smaller. With `share`, of all processes together.
        preprocess: Its `normalize` makes the network's input; on `device`.
        augment: Applied to blocks of whole batches, with `generator`.
        generator: Source of all randomness; needed with `augment`, and alike in all processes.
        share: Rank and number of the processes that divide each batch; all get equally many
            images, so up to one less than there are processes is left out.
        device: Where the batches go.
        memory_format: Their layout.

    Example:
        >>> from convship.data import load_data
        >>> preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> images = store(load_data("digits").test, preprocess)
        >>> inputs, targets = next(batches(images, torch.arange(8), 4, preprocess))
        >>> inputs.shape, targets.shape
        (torch.Size([4, 1, 32, 32]), torch.Size([4]))
    """
    rank, world = share
    order = order[: len(order) // world * world][rank::world]
    blocks = max(1, _BLOCK_IMAGES // batch_size)
    batch_size //= world
    for pixels, targets in images.blocks(order, batch_size * blocks):
        if augment is not None and generator is not None:
            pixels = augment(pixels, generator, share)
        pixels, targets = pixels.to(device), targets.to(device)
        inputs = preprocess.normalize(pixels).contiguous(memory_format=memory_format)
        yield from zip(inputs.split(batch_size), targets.split(batch_size), strict=True)


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, capped by a cgroup quota.

    Under torchrun they are divided among the machine's processes.

    Example:
        >>> available_cpus() >= 1
        True
    """
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no such quota here
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
