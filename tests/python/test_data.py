"""Data sets by name, decoding, caching, streaming, augmentation."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from convship.augment import Augment, flip, rotate_and_scale, shift
from convship.batches import CachedImages, StreamedImages, batches
from convship.data import from_datasets, load_data, read_image, split_by_class
from convship.errors import ImageError
from convship.plots import plot_samples, spread_over_classes
from convship.preprocess import Preprocess


def preprocess(size: int = 16, channels: int = 3) -> Preprocess:
    return Preprocess(size, channels=channels, mean=[0.5] * channels, std=[0.5] * channels)


class TestLoadData:
    def test_digits_are_whole_stratified_and_always_split_alike(self):
        digits, again = load_data("digits"), load_data("digits")
        assert (len(digits.train), len(digits.test)) == (1438, 359)
        assert digits.train.images.max() == 255
        assert torch.equal(digits.test.images, again.test.images)
        counts = torch.bincount(digits.test.targets)
        assert counts.min() >= 34
        assert counts.max() <= 38
        train = {bytes(image.numpy().tobytes()) for image in digits.train.images}
        assert sum(image.numpy().tobytes() in train for image in digits.test.images) <= 1

    def test_unknown_name_lists_the_known_fails(self):
        with pytest.raises(ValueError, match=r"unknown name 'x'; known: digits, .*folder:PATH"):
            load_data("x")

    def test_folder_without_test_holds_out_a_fraction_of_every_class(self, image_folder):
        data = load_data(f"folder:{image_folder(count=10)}", held_out=0.3)
        assert data.labels == ["blue", "red"]
        assert torch.bincount(data.test.targets).tolist() == [3, 3]
        assert not set(data.test.paths) & set(data.train.paths)
        assert data.size is None

    def test_folder_with_train_and_test_keeps_them(self, image_folder):
        root = image_folder("both/train").parent
        image_folder("both/test", count=2)
        data = load_data(f"folder:{root}")
        assert (len(data.train), len(data.test)) == (12, 4)

    def test_classes_of_train_and_test_that_differ_fail(self, image_folder):
        root = image_folder("both/train").parent
        image_folder("both/test", labels=("blue", "green"))
        with pytest.raises(ValueError, match="only one of them has green, red"):
            load_data(f"folder:{root}")

    def test_folder_with_one_class_fails(self, image_folder):
        root = image_folder(labels=("cat",))
        with pytest.raises(ValueError, match=r"at least 2 class folders.*got 1 \(cat\)"):
            load_data(f"folder:{root}")

    def test_empty_and_missing_folders_fail(self, image_folder, tmp_path):
        root = image_folder()
        (root / "void").mkdir()
        with pytest.raises(ValueError, match="void holds no JPEG or PNG"):
            load_data(f"folder:{root}")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            load_data(f"folder:{tmp_path / 'nowhere'}")

    def test_own_datasets_may_hold_pil_images_or_tensors(self):
        pairs = [
            (Image.new("L", (8, 8), 7), 0),
            (torch.full((1, 8, 8), 7).byte(), 1),
            (torch.full((8, 8), 7).byte().numpy(), 1),
        ]
        data = from_datasets(pairs, pairs, ["a", "b"])
        images = CachedImages(data.train, preprocess(8))
        assert images.images.unique().tolist() == [7]
        with pytest.raises(ValueError, match=r"must be 0\.\.0, one per label, got 0\.\.1"):
            from_datasets(pairs, pairs, ["a"])
        with pytest.raises(ValueError, match="uint8"):
            from_datasets([(torch.rand(3, 8, 8), 0)] * 2, pairs, ["a", "b"])

    def test_split_keeps_one_image_of_the_smallest_class(self):
        kept, held = split_by_class(torch.tensor([0, 0, 1, 1, 1]), 0.9, seed=0)
        assert len(kept) == 2
        assert len(held) == 3


class TestDecoding:
    def test_image_is_read_as_pillow_reads_it(self, image_folder):
        path = image_folder() / "red" / "0.jpg"
        with Image.open(path) as image:
            expected = image.convert("RGB").tobytes()
        assert read_image(path).permute(1, 2, 0).contiguous().numpy().tobytes() == expected

    @pytest.mark.parametrize("content", [b"", b"no image", None])
    def test_damaged_image_is_named_fails(self, image_folder, content):
        path = image_folder() / "red" / "0.jpg"
        path.write_bytes(path.read_bytes()[:-20] if content is None else content)
        with pytest.raises(ImageError, match=r"red/0\.jpg: cannot be read as an image") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_damaged_image_is_named_by_workers_too_fails(self, image_folder, workers):
        root = image_folder()
        (root / "red" / "3.png").write_bytes(b"no image")
        source = load_data(f"folder:{root}", held_out=0.1).train
        if source.paths.count(root / "red" / "3.png") == 0:
            source = load_data(f"folder:{root}", held_out=0.1).test
        with pytest.raises(ImageError, match=r"^\S*red/3\.png: cannot be read as an image"):
            CachedImages(source, preprocess(), workers)

    def test_cached_streamed_and_exported_pixels_are_the_same(self, image_folder):
        source = load_data(f"folder:{image_folder()}").train
        prepare = preprocess(12)
        cached = CachedImages(source, prepare, workers=0)
        streamed = StreamedImages(source, prepare, workers=2)
        order = torch.randperm(len(source))
        for (left, _), (right, _) in zip(
            cached.blocks(order, 4), streamed.blocks(order, 4), strict=True
        ):
            assert torch.equal(left, right)
        for index in range(len(source)):
            alone = prepare(source.read(index).unsqueeze(0))[0]
            assert torch.equal(prepare.normalize(cached.images[index : index + 1])[0], alone)

    def test_batches_follow_the_order_and_end_with_a_smaller_one(self):
        digits = load_data("digits").test
        images = CachedImages(digits, preprocess(8, 1))
        order = torch.randperm(len(digits))[:10]
        parts = list(batches(images, order, 4, preprocess(8, 1)))
        assert [len(inputs) for inputs, _ in parts] == [4, 4, 2]
        assert torch.equal(torch.cat([targets for _, targets in parts]), digits.targets[order])


class TestAugment:
    def test_shift_moves_whole_images(self):
        images = torch.arange(3 * 6 * 6).view(1, 3, 6, 6).byte().expand(50, -1, -1, -1)
        moved = shift(images, 2, torch.Generator().manual_seed(0))
        padded = torch.nn.functional.pad(images[:1], (2, 2, 2, 2), mode="reflect")[0]
        windows = padded.unfold(1, 6, 1).unfold(2, 6, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        matches = (moved.unsqueeze(1) == windows).flatten(2).all(2)
        assert matches.any(1).all()
        assert matches.any(0).sum() > 15

    def test_flip_mirrors_about_half(self):
        images = torch.arange(4).byte().view(1, 1, 1, 4).expand(400, -1, -1, -1)
        mirrored = (flip(images, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 3).sum()
        assert 150 < mirrored < 250

    def test_no_rotation_changes_nothing(self):
        images = torch.randint(0, 256, (4, 3, 9, 9)).byte()
        assert torch.equal(rotate_and_scale(images, 0.0, 0.0, torch.Generator()), images)

    def test_same_generator_gives_the_same_images(self):
        augment = Augment(flip=True, shift=2, rotate=10, scale=0.1)
        images = torch.randint(0, 256, (8, 3, 16, 16)).byte()
        first, second = (augment(images, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first, images)


def test_samples_cover_the_classes_and_are_drawn(tmp_path):
    digits = load_data("digits")
    chosen = spread_over_classes(digits.test, 8)
    assert len(set(digits.test.targets[chosen].tolist())) == 8
    plot_samples(digits, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.width > 600
