"""convship.load: answers belong to the caller, inputs stay the caller's, threads do not mix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from models_for_tests import LABELS, classifier, write_images
from torch import Tensor, nn

import convship
from convship import _C


class Aliases(nn.Module):
    """Returns a view of its input, a weight, and something computed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x[1:], self.weight, x * self.weight


class Subtract(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y) * self.weight


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.linear(x.relu_())


class WritesToItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.register_buffer("state", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.state.copy_(self.linear(x))
        return torch.tanh(self.state) + 0


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * torch.rand(1)


class RefusesZeros(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x == 0).all()):
            raise ValueError("all zeros")
        return x


class SmallImages(nn.Module):
    """Preprocessing that takes no image of more than 128 rows."""

    def __init__(self, preprocess: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        if images.size(2) > 128:
            raise ValueError("too large")
        return self.preprocess(images)


@pytest.fixture(params=["convship", "libtorch"])
def ship(request, tmp_path):
    def export_and_load(model, *samples):
        convship.export_model(model, tmp_path / "m.pt", samples=samples)
        assert convship.verify_model(tmp_path / "m.pt", backend=request.param).passed
        return convship.load(tmp_path / "m.pt", backend=request.param)

    return export_and_load


def test_outputs_that_are_views_belong_to_the_caller(ship):
    model = ship(Aliases(), torch.rand(2, 3))
    outputs = model.run(torch.full((1000, 3), 7.0))
    others = [torch.full((1000, 3), -1.0) for _ in range(50)]
    assert outputs["output_0"].unique().tolist() == [7.0]
    outputs["output_1"].fill_(100.0)
    assert model.run(torch.ones(2, 3))["output_2"].unique().tolist() == [2.0]
    assert len(others) == 50


def test_inputs_and_samples_are_not_written_to(ship):
    sample = torch.rand(2, 3)
    before = sample.clone()
    model = ship(InPlace(), sample)
    model.run(sample)
    assert torch.equal(sample, before)


def test_inputs_go_by_the_order_of_forward(ship):
    model = ship(Subtract(), {"y": torch.rand(2, 3), "x": torch.rand(2, 3)})
    two, one = torch.full((1, 3), 2.0), torch.ones(1, 3)
    assert model.run(two, one)["output"].tolist() == [[1.0] * 3]
    assert model.run(y=one, x=two)["output"].tolist() == [[1.0] * 3]
    with pytest.raises(ValueError, match="each once"):
        model.run(two, one, y=one)
    with pytest.raises(ValueError, match="inputs are x, y; got z"):
        model.run(x=two, z=one)


def test_pending_negation_and_strides_are_honoured(ship):
    model = ship(Subtract(), (torch.rand(2, 3), torch.rand(2, 3)))
    negated = torch.complex(torch.zeros(1, 3), torch.ones(1, 3)).conj().imag
    assert negated.is_neg()
    assert model.run(negated, torch.zeros(1, 3))["output"].tolist() == [[-1.0] * 3]
    columns = torch.arange(12.0).reshape(3, 4).t()[::2]
    assert torch.equal(model.run(columns, torch.zeros(2, 3))["output"], columns)
    with pytest.raises(ValueError, match="dense tensor on the CPU"):
        model.run(torch.eye(3).to_sparse(), torch.zeros(3, 3))


def test_threads_do_not_see_each_others_state(ship):
    network = WritesToItself()
    model = ship(network, torch.rand(16))
    inputs = torch.randn(8, 16)
    expected = [model.run(x)["output"] for x in inputs]

    def wrong(index: int) -> int:
        x, right = inputs[index], expected[index]
        return sum(not torch.equal(model.run(x)["output"], right) for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


@pytest.mark.parametrize("cut", [False, True])
def test_the_first_call_packs_nothing(tmp_path, cut):
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2))
            self.second = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            if cut:
                x = torch.cumsum(x, 3)  # no plan serves it
            return self.second(x)

    x = torch.rand(1, 3, 12, 12)
    convship.export_model(torch.jit.trace(Network().eval(), x), tmp_path / "m.pt", samples=[x])
    before = _C.packings()[0]
    model = convship.load(tmp_path / "m.pt")
    made = _C.packings()[0]
    assert made == before + 2
    model.run(x)
    assert _C.packings()[0] == made
    assert model.plan(x)["whole"] is not cut


def test_preprocessing_that_refuses_some_images_costs_no_packing(tmp_path):
    images = write_images(tmp_path, 1)
    network, preprocess = classifier()
    path = tmp_path / "m.pt"
    convship.export_model(
        network, path, samples=images, preprocess=SmallImages(preprocess), labels=LABELS
    )
    model = convship.load(path)
    made = _C.packings()[0]
    model.run(torch.rand(1, 3, 32, 32))
    assert _C.packings()[0] == made


def test_loading_leaves_no_trace(ship, tmp_path):
    # It calls the network, so that the first call of a user is as fast as the next ones.
    ship(Draws(), torch.rand(2, 3))
    state = torch.get_rng_state()
    convship.load(tmp_path / "m.pt")
    assert torch.equal(torch.get_rng_state(), state)
    model = ship(RefusesZeros(), torch.rand(2, 3) + 1)
    with pytest.raises(ValueError, match="all zeros"):
        model.run(torch.zeros(2, 3))
    assert model.run(torch.ones(2, 3))["output"].sum() == 6


def test_empty_batch_runs(ship):
    model = ship(nn.Linear(3, 2), torch.rand(2, 3))
    assert model.run(torch.zeros(0, 3))["output"].shape == (0, 2)


def test_threads_classify_as_one_does(tmp_path):
    images = write_images(tmp_path, 8)
    network, preprocess = classifier()
    path = tmp_path / "classifier.pt"
    convship.export_model(network, path, samples=images[:1], preprocess=preprocess, labels=LABELS)
    model = convship.load(path)
    expected = [[p.probability for p in model.predict(image, top_k=5)] for image in images]

    def wrong(index: int) -> int:
        answers = (model.predict(images[index], top_k=5) for _ in range(50))
        return sum([p.probability for p in each] != expected[index] for each in answers)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0
