"""convship explain: what the maps say is true of the network in the file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from models_for_tests import LABELS, LiteralOp, classifier, write_images
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convship
from convship.cli import main
from convship.errors import ImageError, ModelFileError
from convship.explain.attribution import grad_cam, integrated_gradients, occlusion
from convship.explain.classifier import open_classifier
from convship.explain.explanation import explain_image
from convship.models import create_model


class OpClassifier(nn.Module):
    """The fused op, called by name, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LiteralOp()
        self.linear = nn.Linear(4 * 16 * 16, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.op(x).flatten(1))


class Thresholds(nn.Module):
    """No gradient passes a comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x.flatten(1) > 0).float())


class Branching(nn.Module):
    """Which convolution comes last depends on the data; there is no one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.bright = nn.Conv2d(4, 4, 3, stride=2)
        self.linear = nn.Linear(4, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        for _ in range(int(x.size(0))):
            if bool(x.mean() > 0):
                features = torch.relu_(self.bright(features))
        return self.linear(features.mean((2, 3)))


@pytest.fixture
def image(tmp_path):
    return write_images(tmp_path, 1)[0]


def ship(network: nn.Module, image, path=None):
    path = path or image.with_name("model.pt")
    _, preprocess = classifier()
    convship.export_model(
        network.eval(), path, samples=[image], preprocess=preprocess, labels=LABELS
    )
    return path


def cam_by_hand(features: Tensor, logits: Tensor, target: int) -> Tensor:
    (gradient,) = torch.autograd.grad(logits[0, target], features)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()


@pytest.mark.parametrize("baseline", ["mean", "black", "white"])
@pytest.mark.parametrize("network", [classifier()[0], OpClassifier()], ids=["lenet", "op"])
def test_integrated_gradients_add_up_to_the_rise_of_the_logit(network, image, baseline):
    """The logits are convship's own: the maps are about what the file answers."""
    path = ship(network, image)
    found = explain_image(
        path, image, methods=["integrated-gradients"], baseline=baseline, steps=128
    )
    read = open_classifier(path).read(image, baseline)
    run = convship.load(path).run
    logits, nothing = (run(x)["logits"][0] for x in (read.tensor, read.baseline))
    rise = float(logits[found.index] - nothing[found.index])
    # 128 points stand for the integral of a function that bends many times on its way.
    tolerance = 0.005 * float(found.maps["integrated-gradients"].abs().sum())
    assert float(found.maps["integrated-gradients"].sum()) == pytest.approx(rise, abs=tolerance)
    assert abs(found.completeness_error) <= tolerance
    (best,) = convship.load(path).predict(image)
    assert (found.label, found.probability) == (best.label, pytest.approx(best.probability))


def test_file_that_calls_the_op_is_differentiated_through_it(image):
    network = OpClassifier()
    path = ship(network, image)
    assert "convship::conv_pool2d" in convship.inspect(path).required_ops
    x = open_classifier(path).read(image).tensor
    features = F.max_pool2d(F.conv2d(x, network.op.weight, padding=1).relu(), 2)
    expected = cam_by_hand(features, network.linear(features.flatten(1)), 2)
    assert expected.max() > 0
    torch.testing.assert_close(grad_cam(open_classifier(path), x, 2), expected)


def test_grad_cam_is_that_of_the_last_convolution(image):
    network, _ = classifier()
    path = ship(network, image)
    x = open_classifier(path).read(image).tensor
    conv1, conv2 = network.conv1, network.conv2
    features = F.conv2d(conv1(x), conv2.weight, conv2.bias).relu()
    hidden = F.max_pool2d(features, 2).flatten(1)
    for layer in (network.fc1, network.fc2):
        hidden = layer(hidden).relu()
    expected = cam_by_hand(features, network.fc3(hidden), 1)
    assert expected.shape == (1, 1, 10, 10)
    assert expected.max() > 0
    for _ in range(3):  # TorchScript optimises after the first calls
        torch.testing.assert_close(grad_cam(open_classifier(path), x, 1), expected)
    found = explain_image(path, image, methods=["grad-cam"], label=LABELS[1])
    assert found.feature_map == (10, 10)
    assert found.maps["grad-cam"].shape == (32, 32)


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer4"), ("mobilenet_v3_small", "features")]
)
def test_grad_cam_finds_the_layer_that_people_choose(name, layer):
    """After the last block's sum and activation, not at its convolution; past all 1x1 maps."""
    from captum.attr import LayerGradCam

    network = create_model(name, num_classes=3).eval()
    x = torch.rand(1, 3, 96, 96)
    chosen = LayerGradCam(network, network.get_submodule(layer))
    expected = chosen.attribute(x, target=2, relu_attributions=True)
    torch.testing.assert_close(grad_cam(network, x, 2), expected)


@pytest.mark.parametrize(("shift", "size"), [(1.0, 14), (-1.0, 30)])
def test_grad_cam_follows_branches_and_loops(shift, size):
    torch.manual_seed(0)
    scripted = torch.jit.script(Branching().eval())
    assert grad_cam(scripted, torch.rand(1, 3, 32, 32) + shift, 0).shape == (1, 1, size, size)


class TestOcclusion:
    def test_informative_patch_scores_highest(self, tmp_path):
        """A network that looks at one patch only."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, len(LABELS)))
        with torch.no_grad():
            network[1].weight.zero_()
            weight = network[1].weight.view(len(LABELS), 3, 32, 32)
            weight[3, :, 8:16, 20:28] = torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)
        image = tmp_path / "patch.png"
        pixels = np.random.default_rng(0).integers(0, 40, (32, 32, 3), dtype=np.uint8)
        pixels[8:16, 20:28] = (250, 200, 100)
        Image.fromarray(pixels).save(image)
        path = ship(network, image)
        found = explain_image(path, image, methods=["occlusion"], baseline="black", window=8)
        assert found.label == LABELS[3]
        map_ = found.maps["occlusion"]
        row, column = divmod(int(map_.argmax()), 32)
        assert 8 <= row < 16
        assert 20 <= column < 28
        # The window moves by 4: what is 8 pixels or more away never was under the same one.
        far = torch.ones(32, 32, dtype=torch.bool)
        far[0:24, 12:] = False
        assert map_[far].abs().max() == 0
        # Covering all of it takes all of its share of the logit.
        assert float(map_.max()) <= found.logit - found.baseline_logit + 1e-3

    def test_one_window_over_all_is_the_whole_rise(self):
        network, _ = classifier()
        x, baseline = torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
        map_ = occlusion(network, x, baseline, 0, window=32)
        with torch.no_grad():
            rise = network(x)[0, 0] - network(baseline)[0, 0]
        torch.testing.assert_close(map_, rise.expand_as(map_))

    def test_window_beyond_the_input_fails(self):
        x = torch.rand(1, 3, 8, 8)
        with pytest.raises(ValueError, match="window must be from 1 to 8 pixels, got 9"):
            occlusion(nn.Flatten(), x, x, 0, window=9)


def test_picture_undoes_normalisation(image):
    network, preprocess = classifier()
    path = ship(network, image)
    pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1).unsqueeze(0)
    seen = open_classifier(path).read(image).picture
    torch.testing.assert_close(seen, preprocess.resize(pixels)[0] / 255.0)


class TestErrors:
    def test_network_of_tensors_fails(self, tmp_path, image):
        path = tmp_path / "general.pt"
        convship.export_model(nn.Linear(3, 2), path, samples=[torch.rand(1, 3)])
        with pytest.raises(ValueError, match=r"general\.pt is no classifier of images"):
            explain_image(path, image)

    def test_unknown_names_fail(self, image):
        path = ship(classifier()[0], image)
        with pytest.raises(ValueError, match="unknown class 'cat'; known: red, green"):
            explain_image(path, image, label="cat")
        with pytest.raises(ValueError, match=r"methods must be some of .*, got lime"):
            explain_image(path, image, methods=["occlusion", "lime"])
        with pytest.raises(ValueError, match=r"baseline must be one of .*, got 'pink'"):
            explain_image(path, image, baseline="pink")

    def test_network_without_feature_map_fails(self, image):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, len(LABELS)))
        path = ship(network, image)
        with pytest.raises(ValueError, match="leave it out: --methods integrated-gradients"):
            explain_image(path, image, methods=["grad-cam"])

    def test_network_without_gradient_fails_but_can_be_occluded(self, image):
        path = ship(Thresholds(), image)
        with pytest.raises(ValueError, match=r"passes no gradient .*--methods occlusion"):
            explain_image(path, image, methods=["integrated-gradients"])
        found = explain_image(path, image, methods=["occlusion"])
        assert found.maps["occlusion"].abs().max() > 0

    def test_wrong_files_fail(self, tmp_path, image):
        with pytest.raises(ModelFileError, match=r"this is an image \(PNG\), not a model"):
            explain_image(image, image)
        path = ship(classifier()[0], image)
        with pytest.raises(ImageError, match=r"none\.png: no such image file"):
            explain_image(path, tmp_path / "none.png")

    def test_without_captum_says_how_to_get_it_fails(self, image, monkeypatch, capsys):
        path = ship(classifier()[0], image)
        monkeypatch.setitem(sys.modules, "captum", None)
        monkeypatch.setitem(sys.modules, "captum.attr", None)
        assert main(["explain", str(path), str(image)]) == 5
        expected = "convship: explain: Captum is not installed; pip install 'convship[explain]'\n"
        assert capsys.readouterr().err == expected


def test_path_of_more_points_misses_less():
    network, _ = classifier()
    x = torch.rand(1, 3, 32, 32)
    errors = [
        abs(integrated_gradients(network, x, torch.zeros_like(x), 0, steps=steps)[1])
        for steps in (4, 256)
    ]
    assert errors[1] < 0.2 * errors[0]


def test_command_line_draws_the_image_beside_the_maps(image, tmp_path, capsys):
    path = ship(classifier()[0], image)
    sizes = []
    for methods in ("grad-cam", "integrated-gradients,grad-cam,occlusion"):
        out = tmp_path / "why.png"
        words = ["explain", path, image, "--out", out, "--methods", methods, "--class", "blue"]
        assert main(list(map(str, words))) == 0
        with Image.open(out) as picture:
            picture.load()
            sizes.append(picture.size)
    text = capsys.readouterr().out
    assert text.startswith("blue, ")
    assert "the logit rises by" in text
    (two, _), (four, _) = sizes
    assert four == pytest.approx(2 * two, rel=0.01)
