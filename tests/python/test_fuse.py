"""fuse: the same answers from fewer layers, the original untouched, a reason for what is left."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import random

import pytest
import torch
import torch.nn.functional as F
from models_to_fuse import (
    LEFT,
    Branching,
    Digits,
    Iterating,
    Keeping,
    Siamese,
    Slicing,
    Stem,
    Switching,
)
from torch import nn

import convship
from convship._torchvision import torchvision
from convship.nn import ConvPool2d

# Name -> chains fused in evaluation and in training, smallest image.
FAMILIES = {
    "alexnet": (3, 3, 64),
    "vgg11": (5, 5, 32),
    "vgg11_bn": (5, 0, 32),
    "squeezenet1_1": (1, 1, 64),
    "resnet18": (1, 0, 64),
    "densenet121": (1, 0, 64),
    "googlenet": (2, 0, 64),
}


def family(name: str) -> nn.Module:
    """A network with random weights, statistics that matter and a small head."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, num_classes=10, **options)
        if name.startswith(("alexnet", "vgg")):
            inputs = next(m for m in model.classifier if isinstance(m, nn.Linear)).in_features
            model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(inputs, 10))
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return model


def count(model: nn.Module) -> int:
    return sum(type(module) is ConvPool2d for module in model.modules())


def assert_same(model: nn.Module, fused: nn.Module, *inputs: torch.Tensor) -> None:
    """Outputs and gradients agree, in float64 so that only a wrong formula can differ."""
    results = []
    for network in (copy.deepcopy(model).double(), copy.deepcopy(fused).double()):
        torch.manual_seed(1)
        images = [image.double().requires_grad_() for image in inputs]
        output = network(*(image * 1 for image in images))  # no leaves: forward may be in place
        output.square().sum().backward()
        results.append((output, [image.grad for image in images], dict(network.named_parameters())))
    (expected, expected_in, theirs), (output, output_in, ours) = results
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(output_in, expected_in)
    for name in theirs.keys() & ours.keys():
        # Weights with a batch norm folded in are others, and so are their gradients.
        if torch.equal(theirs[name], ours[name]):
            torch.testing.assert_close(ours[name].grad, theirs[name].grad)


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_answers_stay_and_the_original_is_untouched(name):
    in_evaluation, _, size = FAMILIES[name]
    model, images = family(name).eval(), torch.randn(2, 3, size, size)
    before, kind, text = copy.deepcopy(model.state_dict()), type(model), repr(model)
    fused, report = convship.fuse(model)
    assert len(report.fused) == count(fused) == in_evaluation
    assert (type(model), repr(model), count(model)) == (kind, text, 0)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not {p.data_ptr() for p in model.parameters()} & {
        p.data_ptr() for p in fused.parameters()
    }
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(images.double())
        error = (model(images) - truth).abs().max()
        # Folding rounds each weight once more; 4 leaves room for it in a deep network.
        assert (fused(images) - truth).abs().max() <= 4 * error + 1e-6 * truth.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_in_training_keeps_batch_norm_gradients_and_checkpoints(name):
    model = family(name).train()
    fused, report = convship.fuse(model)
    assert len(report.fused) == count(fused) == FAMILIES[name][1]
    assert [*fused.state_dict()] == [*model.state_dict()]
    assert fused.training
    fused.load_state_dict(family(name).state_dict())
    if name in ("alexnet", "vgg11", "squeezenet1_1"):
        size = FAMILIES[name][2]
        assert_same(model, convship.fuse(model).model, torch.randn(2, 3, size, size))
    if name == "googlenet":
        assert fused(torch.randn(2, 3, 64, 64)).aux_logits1.shape == (2, 10)


def test_googlenet_fused_for_evaluation_still_has_auxiliary_outputs_in_training():
    fused, report = convship.fuse(family("googlenet").eval())
    assert report.rewritten == ("conv1", "conv3")
    assert fused.train()(torch.randn(2, 3, 64, 64)).aux_logits2.shape == (2, 10)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "densenet169", "inception_v3"])
def test_more_torchvision_stems_are_found(name):
    expected = {"vgg16": 5, "inception_v3": 2}.get(name, 1)
    assert len(convship.fuse(family(name).eval()).report.fused) == expected


LAYERS = (
    lambda c: nn.Conv2d(c, c, 3, padding=1, padding_mode=random.choice(["zeros", "reflect"])),
    lambda c: nn.Conv2d(
        c, c, (1, 3), stride=random.choice([1, (1, 2)]), padding=(0, 1), bias=False
    ),
    lambda c: nn.Conv2d(c, c, 3, padding=random.choice(["same", "valid"]), groups=2),
    lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2),
    lambda c: nn.BatchNorm2d(c, affine=random.random() < 0.5),
    lambda c: nn.BatchNorm2d(c, track_running_stats=random.random() < 0.5),
    lambda c: nn.ReLU(),
    lambda c: nn.ReLU(),
    lambda c: nn.MaxPool2d(2, random.choice([1, 2, None]), ceil_mode=random.random() < 0.5),
    lambda c: nn.MaxPool2d((3, 2), 1, (1, 0), dilation=random.choice([1, 1, 2])),
    lambda c: nn.Identity(),
    lambda c: nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU()),
)


def sequence() -> nn.Sequential:
    model = nn.Sequential(*(random.choice(LAYERS)(4) for _ in range(12)))
    for before, layer in itertools.pairwise(model):
        # After another ReLU, torch itself could not compute gradients.
        if isinstance(layer, nn.ReLU) and isinstance(before, nn.Conv2d | nn.BatchNorm2d):
            layer.inplace = random.random() < 0.5
    return model.double()  # so that folding a batch norm rounds to 16 digits


@pytest.mark.parametrize("seed", range(60))
def test_random_sequences_stay_the_same_function(seed):
    random.seed(seed)
    model = sequence()
    # A ReLU that stands in several places, as `self.relu` does in many a model.
    relu = next((m for m in model if isinstance(m, nn.ReLU) and not m.inplace), nn.ReLU())
    model.append(nn.Sequential(nn.Conv2d(4, 4, 3, padding=2), relu, nn.MaxPool2d(2, 1)).double())
    image = torch.randn(2, 4, 70, 70)
    for mode in (True, False):
        fused, report = convship.fuse(model.train(mode))
        pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
        assert len(report.fused) + len(report.left) >= len(pools)
        assert_same(model, fused, image)
        assert convship.fuse(fused).report.fused == ()
        if mode:
            assert_same(model.eval(), fused.eval(), image)


def test_random_sequences_do_contain_chains():
    random.seed(0)
    fused = [len(convship.fuse(sequence().eval()).report.fused) for _ in range(60)]
    assert sum(fused) > 20


def test_functions_and_a_pool_called_twice_are_written_out_of_forward():
    model = Digits()
    fused, report = convship.fuse(model)
    assert [chain.layers for chain in report.fused] == [
        ("conv1", "relu()", "pool"),
        ("conv2", "pool", "relu_()"),
        ("conv3", "relu()", "max_pool2d()"),
    ]
    assert isinstance(fused, Digits)
    assert fused.unused.weight.shape == (2, 2)
    assert [*fused.state_dict()] == [*model.state_dict()]
    for mode in (True, False):  # one forward serves both modes: dropout knows which it is
        assert_same(model.train(mode), fused.train(mode), torch.randn(2, 1, 40, 40))


@pytest.mark.filterwarnings("ignore:Scripted GoogleNet")
@pytest.mark.parametrize("how", ["script", "trace", "pickle", "save", "deepcopy", "export", "fuse"])
@pytest.mark.parametrize("network", ["digits", "alexnet", "googlenet"])
def test_fused_models_go_where_models_go(network, how):
    model = Digits() if network == "digits" else family(network)
    images = torch.randn(2, 1, 40, 40) if network == "digits" else torch.randn(2, 3, 64, 64)
    fused = convship.fuse(model.eval()).model
    if how == "script":
        other = torch.jit.script(fused)
        assert "convship::" not in str(other.inlined_graph)
    elif how == "trace":
        other = torch.jit.trace(fused, images)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(fused))
    elif how == "save":
        buffer = io.BytesIO()
        torch.save(fused, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    elif how == "deepcopy":
        other = copy.deepcopy(fused)
    elif how == "export":
        program = torch.export.export(fused, (images,))
        assert str(program.graph).count("convship.conv_pool2d.default") == count(fused)
        other = program.module()
    else:
        other = convship.fuse(fused).model
    with torch.no_grad():
        result = other(images)
        if how == "script" and network == "googlenet":
            result = result[0]
        torch.testing.assert_close(result, fused(images))
    if how in ("pickle", "save", "deepcopy"):
        torch.manual_seed(2)
        expected = fused.train()(images)
        torch.manual_seed(2)
        torch.testing.assert_close(other.train()(images), expected)


def test_what_cannot_be_traced_is_fused_in_its_parts():
    model = Branching()
    fused, report = convship.fuse(model)
    assert [chain.name for chain in report.fused] == ["stem.conv", "blocks.0.0", "blocks.1.0.0"]
    assert type(fused) is Branching
    assert [*fused.state_dict()] == [*model.state_dict()]
    left = {chain.layers: chain.reason for chain in report.left}
    assert left[("the model",)].startswith("forward cannot be traced: TraceError: symbolically")
    assert left[("pool",)] == "no forward that was traced calls it"
    for sign in (1, -1):
        assert_same(model, fused, sign * torch.rand(2, 1, 40, 40))


def test_methods_that_would_pool_twice_refuse():
    fused = pickle.loads(pickle.dumps(convship.fuse(Stem()).model))
    assert fused.channels() == 4
    with pytest.raises(NotImplementedError, match=r"Stem\.features: its layers are fused into"):
        fused.features(torch.randn(1, 1, 8, 8))


def test_a_graph_module_stays_one():
    model = torch.fx.symbolic_trace(Digits().eval())
    fused, report = convship.fuse(model)
    assert len(report.fused) == 3
    assert isinstance(fused, torch.fx.GraphModule)
    for other in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert_same(model, other, torch.randn(2, 1, 40, 40))


def test_wrapped_and_compiled_models_are_fused_inside():
    assert len(convship.fuse(nn.DataParallel(Stem())).report.fused) == 1
    assert len(convship.fuse(torch.compile(Stem(), backend="eager")).report.fused) == 1


def test_forward_may_keep_what_it_computes():
    model = Keeping()
    fused, report = convship.fuse(model)
    assert len(report.fused) == 1
    for network in (model, fused):
        assert (network.kept, network.count.item()) == ([], 0)
        assert not hasattr(network, "last")
    assert_same(model, fused, torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("model", "fused_names"),
    [
        (Slicing(False), []),
        (Slicing(True), []),
        (Iterating(False), ["features.0", "tail.conv"]),
        (Iterating(True), []),
    ],
)
def test_a_sequence_used_in_parts_keeps_them(model, fused_names):
    fused, report = convship.fuse(model)
    assert [chain.name for chain in report.fused] == fused_names
    if model.branches:
        assert "uses it in parts, where no trace leads" in str(report)
    assert_same(model, fused, torch.randn(2, 1, 20, 20))


def test_a_block_called_twice_is_fused_and_shared_weights_stay_shared():
    model = Siamese()
    fused, report = convship.fuse(model)
    assert [chain.name for chain in report.fused] == ["one", "two", "branch.0"]
    assert fused.one.weight is fused.two.weight
    assert fused.alias is fused.one
    assert_same(model, fused, torch.randn(2, 1, 40, 40), torch.randn(2, 1, 40, 40))


def test_ways_through_forward_that_differ_in_training_are_left():
    fused, report = convship.fuse(Switching())
    assert count(fused) == 0
    assert "conv is used elsewhere too" in report.left[0].reason


def test_parameters_keep_what_they_are():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.ReLU())
    model = model.to(torch.bfloat16, memory_format=torch.channels_last).eval()
    model[0].weight.requires_grad_(False)
    state = torch.get_rng_state()
    layer = convship.fuse(model).model[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (False, True)
    assert not layer.training
    # The bias of a batch norm that learns nothing must not begin to learn.
    model[1].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    assert not convship.fuse(model).model[0].bias.requires_grad


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize(("make", "reason"), LEFT)
def test_left_with_a_reason(make, reason):
    model = make()
    fused, report = convship.fuse(model)
    assert reason in " / ".join(chain.reason for chain in report.left)
    assert report.fused == ()
    assert count(fused) == 0
    assert reason in str(report)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (F.relu, "fuse: model must be an nn.Module, got function"),
        (
            torch.jit.script(nn.ReLU()),
            "fuse: model must not be scripted, got RecursiveScriptModule",
        ),
    ],
)
def test_wrong_arguments_fail(model, message):
    with pytest.raises(TypeError, match=message):
        convship.fuse(model)
