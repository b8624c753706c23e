"""Preprocess: the same bits as torchvision and Pillow, scripted or not."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from convship import Preprocess
from convship._torchvision import torchvision

functional = torchvision.transforms.functional

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def random_images(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(2, 40),
    extra=st.integers(0, 20),
    seed=st.integers(0, 1000),
)
def test_resize_and_crop_within_one_level_of_torchvision(height, width, size, extra, seed):
    images = random_images(seed, 2, 3, height, width)
    preprocess = Preprocess(size, resize=size + extra, **IMAGENET)
    expected = functional.center_crop(
        functional.resize(images, size + extra, antialias=True), [size, size]
    )
    # torchvision resizes in float32 and rounds, we in ATen's fixed point.
    assert (preprocess.resize(images).int() - expected.int()).abs().max() <= 1


def test_normalised_values_equal_torchvisions():
    images = random_images(0, 2, 3, 32, 32)
    as_float = functional.convert_image_dtype(images, torch.float)
    expected = functional.normalize(as_float, IMAGENET["mean"], IMAGENET["std"])
    assert torch.equal(Preprocess(32, **IMAGENET)(images), expected)


def test_resize_gives_the_same_bits_on_every_instruction_set():
    program = (
        "import hashlib, torch; from convship import Preprocess\n"
        "g = torch.Generator().manual_seed(0); digest = hashlib.sha256()\n"
        "for h, w, size in [(50, 70, 32), (9, 200, 16), (300, 401, 224), (8, 8, 31)]:\n"
        "    x = torch.randint(0, 256, (2, 3, h, w), dtype=torch.uint8, generator=g)\n"
        "    p = Preprocess(size, mean=[0.5] * 3, std=[0.2] * 3)\n"
        "    digest.update(p.resize(x).contiguous().numpy().tobytes())\n"
        "print(torch.backends.cpu.get_cpu_capability(), digest.hexdigest())"
    )
    results = dict(
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for capability in ("default", "avx2", "avx512")
    )
    assert len(results) > 1 or "DEFAULT" in results
    assert len(set(results.values())) == 1, results


def test_gray_equals_pillow_for_every_colour_cube_corner_and_noise():
    pixels = random_images(1, 64, 64, 3).numpy()
    pixels[0, :8] = np.array(np.meshgrid([0, 255], [0, 255], [0, 255])).T.reshape(8, 3)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    preprocess = Preprocess(64, channels=1, mean=[0.5], std=[0.5])
    gray = preprocess.resize(torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0))
    assert np.array_equal(gray[0, 0].numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("given_channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 40])
def test_scripted_equals_eager(channels, given_channels, resize):
    preprocess = Preprocess(
        (32, 24), resize=resize, channels=channels, mean=[0.4] * channels, std=[0.2] * channels
    )
    scripted = torch.jit.script(preprocess)
    for height, width in [(32, 24), (7, 50), (200, 31)]:
        images = random_images(2, 3, given_channels, height, width)
        result = preprocess(images)
        assert result.shape == (3, channels, 32, 24)
        assert torch.equal(result, scripted(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "at least 2 pixels"),
        ({"size": 8, "channels": 2}, r"1 \(gray\) or 3 \(RGB\), got 2"),
        ({"size": 8, "resize": 7}, "resize must be at least size"),
        ({"size": 8, "mean": [0.5]}, "one value per channel"),
        ({"size": 8, "std": [1, 0, 1]}, "std must be positive"),
    ],
)
def test_bad_arguments_fails(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**{**IMAGENET, **arguments})


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.uint8)]
)
def test_bad_images_fails(images):
    with pytest.raises(ValueError, match="preprocess: images must"):
        Preprocess(8, **IMAGENET)(images)
