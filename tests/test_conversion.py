"""Replacing the activations of any model: their number, the model's output, and what is preserved."""

import copy
import io
import itertools
import math
import pickle
import random
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

from leaf import AHAF, LEAF, replace_activations
from leaf.activations import ACTIVATIONS, SHARING, Adaptive, learnable

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def adaptive(model: nn.Module) -> dict[str, Adaptive]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Adaptive)}


def names(entries: list) -> list[str]:
    return [entry.name for entry in entries]


def outputs(model: nn.Module, *arguments: torch.Tensor) -> torch.Tensor:
    """In evaluation, without gradients."""
    with torch.no_grad():
        return copy.deepcopy(model).eval()(*arguments)


class Functional(nn.Module):
    """Calls activations in every possible way, with dropout that depends on the training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.linears = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)])
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: torch.Tensor, *, bias: float = 0.0) -> torch.Tensor:
        x = F.relu(self.conv(x), inplace=True).mean((2, 3))
        x = torch.relu(self.linears[0](x)) * self.scale
        x = self.linears[1](x).relu_()
        x = F.dropout(x, 0.5, training=self.training)
        x = torch.tanh(self.linears[2](x))
        return self.linears[3](x).sigmoid() + bias


class Looping(nn.Module):
    """Cannot be traced: the number of its iterations depends on its input."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.linears:
            x = self.relu(linear(x)) if x.sum() < 1e9 else x
        return F.silu(x)


# --- by count ---------------------------------------------------------------------------------------------------------


def test_resnet18():
    """Every block applies one module twice and gets two activations. Everything else is preserved."""
    model = torchvision.models.resnet18(num_classes=10)
    original = copy.deepcopy(model)
    found = replace_activations(model, "leaf", example_input=IMAGES, sharing="channel")
    assert found.model is model and type(model) is torchvision.models.ResNet and found.kept == []
    blocks = [f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)]
    assert names(found.replaced) == ["relu", *(f"{block}.{name}" for block in blocks for name in ("relu", "relu_2"))]
    assert {one.original for one in found.replaced} == {"ReLU"} and {one.form for one in found.replaced} == {"relu"}
    shapes = [(64, 16, 16), *([(64, 8, 8)] * 4), *([(128, 4, 4)] * 4), *([(256, 2, 2)] * 4), *([(512, 1, 1)] * 4)]
    assert [one.shape for one in found.replaced] == shapes
    assert [layer.p1.shape for layer in adaptive(model).values()] == [(shape[0], 1, 1) for shape in shapes]
    assert found.parameters == 4 * sum(shape[0] for shape in shapes)
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    assert all(isinstance(module, torchvision.models.resnet.BasicBlock) for module in model.layer1)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in original.state_dict().items())
    assert len(state) == len(original.state_dict()) + 4 * 17
    before = outputs(original, IMAGES)
    assert (outputs(model, IMAGES) - before).abs().max() < 1e-5 * before.abs().max()
    assert found.difference < 1e-5 * before.abs().max()
    with torch.no_grad():
        model.layer1[0].relu_2.p4 += 1
    changed = outputs(model, IMAGES)
    assert (changed - before).abs().max() > 1e-3
    assert str(found).splitlines()[:2] == [
        "17 activations replaced by LEAF, 15,616 parameters added;"
        f" the output on the example changed by at most {found.difference:.1e}",
        "  relu: ReLU → relu, 64×16×16, 256 parameters",
    ]


def test_mobilenet():
    """Hard-swish and hard-sigmoid have no form: they are kept, or replaced by the closest form on request."""
    model = torchvision.models.mobilenet_v3_small(num_classes=10)
    found = replace_activations(copy.deepcopy(model), example_input=IMAGES)
    originals = [type(module).__name__ for module in model.modules()]
    counts = {name: originals.count(name) for name in ("ReLU", "Hardswish", "Hardsigmoid")}
    assert counts == {"ReLU": 14, "Hardswish": 19, "Hardsigmoid": 9}
    assert [one.original for one in found.replaced] == ["ReLU"] * 14
    kept = [(one.original, one.reason) for one in found.kept]
    for name, form in (("Hardswish", "silu"), ("Hardsigmoid", "sigmoid")):
        reason = (
            f"LEAF cannot start as {name.lower()}; it starts as: relu, silu, tanh, sigmoid;"
            f" with nearest=True it starts as {form}, which is close"
        )
        assert kept.count((name, reason)) == counts[name]
    assert len(kept) == 28
    found = replace_activations(model, example_input=IMAGES, nearest=True)
    assert found.kept == [] and len(found.replaced) == 42
    u = torch.linspace(-15, 15, 100_001, dtype=torch.float64)
    errors = {one.original: one.error for one in found.replaced}
    assert errors["ReLU"] is None
    assert errors["Hardswish"] == pytest.approx((F.hardswish(u) - F.silu(u)).abs().max().item())
    assert errors["Hardsigmoid"] == pytest.approx((F.hardsigmoid(u) - torch.sigmoid(u)).abs().max().item())
    assert "Hardswish → silu, 16×16×16, 16,384 parameters, off by up to 0.14" in str(found)


def test_vision_transformer():
    """GELU(u) ≈ u·σ(1.702 u), off by up to 0.02; the features come last."""
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5)
    assert names(replace_activations(model, example_input=IMAGES).kept) == [
        f"encoder.layers.encoder_layer_{layer}.mlp.1" for layer in (0, 1)
    ]
    for family in ("leaf", "ahaf"):
        converted = copy.deepcopy(model)
        found = replace_activations(
            converted, family, example_input=IMAGES, sharing="channel", channel_dim=-1, nearest=True
        )
        layers = adaptive(converted).values()
        assert [one.shape for one in found.replaced] == [(17, 24)] * 2
        assert {p.shape for layer in layers for p in layer.parameters()} == {(1, 24)}
        slopes = [layer.p3 if family == "leaf" else layer.gamma for layer in layers]
        assert all((slope == torch.tensor(1.702)).all() for slope in slopes)
        u = torch.linspace(-15, 15, 100_001, dtype=torch.float64)
        error = (F.gelu(u) - u * torch.sigmoid(1.702 * u)).abs().max().item()
        assert [one.error for one in found.replaced] == [pytest.approx(error)] * 2 and 0.02 < error < 0.021


def test_functions():
    """F.relu, torch.relu, x.relu_(), torch.tanh, x.sigmoid() are replaced and named; dropout still follows train()."""
    model = Functional()
    original = copy.deepcopy(model)
    found = replace_activations(model, example_input=IMAGES)
    assert [(one.name, one.original, one.form) for one in found.replaced] == [
        ("relu", "F.relu", "relu"), ("relu_2", "torch.relu", "relu"), ("relu_3", "Tensor.relu_", "relu"),
        ("tanh", "torch.tanh", "tanh"), ("sigmoid", "Tensor.sigmoid", "sigmoid"),
    ]  # fmt: skip
    assert found.kept == [] and isinstance(model, Functional)
    torch.testing.assert_close(outputs(model, IMAGES), outputs(original, IMAGES), rtol=1e-5, atol=1e-6)
    for copied in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for both in (copied, original):
            torch.manual_seed(3)
            both.result = both.train()(IMAGES, bias=1.0)
        torch.testing.assert_close(copied.result, original.result, rtol=1e-5, atol=1e-6)
        assert not torch.equal(copied.result, copied(IMAGES, bias=1.0)), "dropout is at work"
        assert torch.equal(copied.eval()(IMAGES), copied(IMAGES)), "and at rest"
    ahaf = replace_activations(Functional(), "ahaf", example_input=IMAGES)
    assert len(ahaf.replaced) == 3
    assert [str(one) for one in ahaf.kept] == [
        "tanh: torch.tanh, AHAF cannot start as tanh; it starts as: relu, silu",
        "sigmoid: Tensor.sigmoid, AHAF cannot start as sigmoid; it starts as: relu, silu",
    ]  # fmt: skip


def test_what_cannot_be_replaced():
    """Recurrent layers compute their activations internally; the others have no form."""

    class Everything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru, self.rnn = nn.LSTM(4, 4), nn.GRU(4, 4), nn.RNN(4, 4)
            self.cells = nn.ModuleList([nn.LSTMCell(4, 4), nn.GRUCell(4, 4), nn.RNNCell(4, 4)])
            self.formless = nn.Sequential(
                nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.Softplus(), nn.SELU(), nn.CELU(), nn.Mish(), nn.PReLU(),
                nn.Hardtanh(), nn.Softsign(), nn.LogSigmoid(), nn.Threshold(0.1, 0.0), nn.GELU(),
            )  # fmt: skip
            self.unused = nn.ReLU()
            self.scale = nn.Parameter(torch.ones(2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in (self.lstm, self.gru, self.rnn):
                x = layer(x)[0]
            lstm, gru, rnn = self.cells
            x = rnn(gru(lstm(x)[0])) * torch.sigmoid(self.scale).sum()
            return F.leaky_relu(F.softmax(self.formless(x), -1)) + F.relu(x[:, 0].long()).sum() + F.relu(x.sum(1)).sum()

    found = replace_activations(Everything(), example_input=torch.randn(3, 4))
    assert found.replaced == []
    reasons = {one.name: (one.original, one.reason) for one in found.kept}
    for name in ("lstm", "gru", "rnn"):
        assert reasons.pop(name) == (name.upper(), "its activations are inside")
    for place, name in enumerate(("LSTMCell", "GRUCell", "RNNCell")):
        assert reasons.pop(f"cells.{place}") == (name, "its activations are inside")
    for place in range(12):
        assert reasons.pop(f"formless.{place}")[1].startswith("LEAF cannot start as ")
    assert "nearest=True" in reasons.pop("formless.12")[1]
    assert reasons.pop("unused") == ("ReLU", "the example does not reach it in evaluation")
    assert reasons.pop("leaky_relu") == (
        "F.leaky_relu", "LEAF cannot start as leaky_relu; it starts as: relu, silu, tanh, sigmoid"
    )  # fmt: skip
    assert reasons.pop("sigmoid") == ("torch.sigmoid", "its input is a parameter of the model")
    assert [one.reason for one in found.kept if one.name == "relu"] == [
        "its input is torch.int64", "its input has only the batch dimension"
    ]  # fmt: skip


def test_compiled_modules_stay():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU())), nn.ReLU())
    found = replace_activations(model, example_input=torch.randn(2, 3))
    assert names(found.replaced) == ["2"] and [(one.name, one.reason) for one in found.kept] == [
        ("1", "it is compiled")
    ]


# --- one activation for each place ------------------------------------------------------------------------------------


def test_one_module_under_several_names():
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Linear(4, 5), relu, nn.Sequential(nn.Linear(5, 6), relu), nn.Linear(6, 3), relu)
    found = replace_activations(model, example_input=torch.randn(2, 4))
    assert [(one.name, one.shape) for one in found.replaced] == [("1", (5,)), ("2.1", (6,)), ("4", (3,))]
    assert len(model) == 5


def test_a_block_that_is_used_twice_has_one_activation():
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(block, nn.Tanh(), block)
    assert names(replace_activations(model, example_input=torch.randn(2, 4)).replaced) == ["0.1", "1"]


def test_code_that_cannot_be_traced():
    """All uses of a module share one activation if their inputs are alike; functions are kept, with the reason."""
    model = Looping(4, 5, 5, 5)
    original = copy.deepcopy(model)
    found = replace_activations(model, example_input=torch.randn(2, 4))
    assert [(one.name, one.shape) for one in found.replaced] == [("relu", (5,))]
    (kept,) = found.kept
    assert (kept.name, kept.original) == ("silu", "F.silu") and "cannot be traced" in kept.reason
    u = torch.randn(7, 4)
    torch.testing.assert_close(outputs(model, u), outputs(original, u), rtol=1e-5, atol=1e-5)

    found = replace_activations(Looping(4, 5, 6), example_input=torch.randn(2, 4))
    assert found.replaced == [] and names(found.kept) == ["relu", "silu"]
    assert found.kept[0].reason.startswith("it is applied to inputs of shapes (5,), (6,); its forward cannot be traced")
    found = replace_activations(Looping(4, 5, 6), example_input=torch.randn(2, 4), sharing="channel")
    assert found.replaced == []
    found = replace_activations(Looping(4, 5, 6), example_input=torch.randn(2, 4), sharing="layer")
    assert [(one.name, one.parameters) for one in found.replaced] == [("relu", 4)]


class Asking(nn.Module):
    """Takes another branch if its input is not a tensor, as during tracing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) if isinstance(x, torch.Tensor) else torch.relu(x) + 1


class Remembering(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = torch.relu(x)
        return self.seen


class Drawing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * (1 + 0 * torch.rand(()).item())


class Tossing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) if not self.training or random.random() < 0.5 else torch.relu(x) + 1


class Leaving(nn.Module):
    """Skips layers at random, with NumPy's generator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) if not self.training or np.random.rand() < 0.5 else x


class Frozen(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = 2 * x
        return torch.relu(x)


class Precise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.relu(x)


class Indecisive(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) if self.training else torch.tanh(x)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Asking, "computes something else when traced"),
        (Remembering, "makes or keeps tensors"),
        (Drawing, "draws random numbers"),
        (Tossing, "draws random numbers"),
        (Leaving, "draws random numbers"),
        (Frozen, "turns gradients or autocast on or off"),
        (Precise, "turns gradients or autocast on or off"),
        (Indecisive, "does not always apply the same activations"),
    ],
)
def test_code_that_a_tracer_would_misread_stays(kind, reason):
    model = nn.Sequential(nn.Linear(3, 3), kind())
    original, chance = copy.deepcopy(model), (random.getstate(), torch.get_rng_state())
    found = replace_activations(model, example_input=torch.randn(2, 3, generator=torch.Generator()))
    assert found.replaced == [] and [reason in one.reason for one in found.kept] == [True]
    assert (
        type(model[1]) is kind
        and "training" in vars(model[1])
        and list(model.state_dict()) == list(original.state_dict())
    )
    if kind is not Drawing:  # which draws when it runs
        assert random.getstate() == chance[0] and torch.equal(torch.get_rng_state(), chance[1])


def test_an_output_of_another_size_is_reported():
    """An output like that of a detector, whose number of boxes depends on scores."""

    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.act(x)
            return y[y == 2 / (1 + torch.exp(-2 * x)) - 1]

    u = torch.randn(50, 3)
    with pytest.warns(UserWarning, match="changed by inf"):
        found = replace_activations(Choosing(), example_input=u)
    assert found.difference == math.inf and not found.model.act.reference


def test_copies_keep_the_state_that_the_class_defines():
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def __getstate__(self):
            return {name: value for name, value in vars(self).items() if name != "lock"}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    model = Locked()
    u = torch.randn(4, 3)
    assert replace_activations(model, example_input=u).replaced
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(u), model(u))
    assert "lock" not in vars(twin)


def test_children_that_a_forward_iterates_over():
    """New submodules must not be among the children, also in copies."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear1, self.linear2 = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.children():
                x = torch.tanh(layer(x))
            return x

    model = Chain()
    original, u = copy.deepcopy(model), torch.randn(5, 3)
    assert names(replace_activations(model, example_input=u).replaced) == ["tanh", "tanh_2"]
    for converted in (model, copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))):
        torch.testing.assert_close(converted(u), original(u), rtol=1e-5, atol=1e-5)


def test_graph_modules():
    """They have their own graph and their own way of copying."""
    block = torchvision.models.resnet.BasicBlock(3, 3).eval()
    model = torch.fx.symbolic_trace(block)
    assert names(replace_activations(model, example_input=IMAGES).replaced) == ["relu", "relu_2"]
    model.relu_2.p4.data += 1
    for converted in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(converted(IMAGES), block(IMAGES) + 1, rtol=1e-5, atol=1e-5)


def test_converting_again_continues_where_it_stopped():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.gelu(self.linear(F.relu(self.linear(x))))

    model, u = Two(), torch.randn(5, 3)
    assert names(replace_activations(model, example_input=u).replaced) == ["relu"]
    model.relu.p4.data += 1
    expected = F.silu(1.702 * model.linear(model.relu(model.linear(u)))) / 1.702
    assert names(replace_activations(model, example_input=u, nearest=True).replaced) == ["gelu"]
    assert replace_activations(model.double(), example_input=u.double()).replaced == []
    torch.testing.assert_close(model.float()(u), expected)
    torch.testing.assert_close(copy.deepcopy(model)(u), expected)


def test_transformer_layers():
    """The encoder's activation is replaced and its fast path disabled; copies of the decoder would lose it."""
    for activation in ("relu", nn.ReLU()):
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=True)
        model = nn.TransformerEncoder(layer, 2)
        original, u = copy.deepcopy(model), torch.randn(2, 5, 8)
        found = replace_activations(model, example_input=u, sharing="channel", channel_dim=-1)
        assert names(found.replaced) == ["layers.0.activation", "layers.1.activation"] and found.kept == []
        torch.testing.assert_close(outputs(model, u), outputs(original, u), rtol=1e-4, atol=1e-5)
        model.layers[1].activation.p4.data += 1
        assert (outputs(model, u) - outputs(original, u)).abs().max() > 0.01
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        model.eval(), original.eval()
        with torch.no_grad():
            changed = model(u, src_key_padding_mask=padding) - original(u, src_key_padding_mask=padding)
        assert changed[:, :3].abs().max() > 0.01
    decoder = nn.TransformerDecoderLayer(8, 2, 16)
    found = replace_activations(decoder, example_input=(u, u), sharing="layer")
    assert found.replaced == [] and [one.original for one in found.kept] == ["TransformerDecoderLayer"]


def test_a_function_that_an_attribute_merely_holds():
    """Calls of the attribute and calls of the function by its own name are distinguished."""

    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = F.relu

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x - 1)

    class Calling(Holding):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.act(x))

    u = torch.randn(5, 3)
    for kind, expected in ((Holding, ["relu"]), (Calling, ["act", "relu"])):
        model = kind()
        found = replace_activations(model, example_input=u)
        assert names(found.replaced) == expected and (kind is Calling or model.act is F.relu)
        before = outputs(model, u)
        model.relu.p4.data += 1
        torch.testing.assert_close(outputs(model, u), before + 1)


def test_an_optional_argument_is_not_taken_for_given():
    """A traced forward has the argument always or never, so that the module is kept."""

    class Masking(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return F.relu(x) if mask is None else F.relu(x) * mask

    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return F.relu(x) * (1 if mask is None else 2)

    class Passing(nn.Module):
        def forward(self, x: torch.Tensor, size: torch.Tensor | None = None) -> torch.Tensor:
            return F.interpolate(F.relu(x), size, scale_factor=2)

    u, mask = torch.randn(5, 3, 4), torch.ones(4)
    for example in (u, (u, mask), {"x": u, "mask": mask}):
        model = Masking()
        (kept,) = replace_activations(model, example_input=example).kept
        assert "computes something else" in kept.reason or "whether mask is given" in kept.reason
        torch.testing.assert_close(model(u), model(u, mask))
    (kept,) = replace_activations(Doubling(), example_input=(u, mask)).kept
    assert kept.reason == "its forward depends on whether mask is given"
    assert names(replace_activations(Passing(), example_input=u).replaced) == ["relu"]


# --- where the channels are -------------------------------------------------------------------------------------------


def converted_per_channel(
    model: nn.Module, example: torch.Tensor, *others: torch.Tensor, channel_dim: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Checks the parameters' shapes, and that the output is unchanged, also for inputs of other sizes."""
    for parameter in model.parameters():  # torchvision zeroes some, which would hide all that lies before
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    original = copy.deepcopy(model)
    found = replace_activations(model, example_input=example, sharing="channel", channel_dim=channel_dim, nearest=True)
    assert found.kept == []
    for u in (example, *others):
        before = outputs(original, u)
        tolerance = 0.05 if any(one.error for one in found.replaced) else 1e-5
        assert (outputs(model, u) - before).abs().max() < tolerance * before.abs().max()
        assert before.abs().max() > 0.01
    return {name: next(iter(layer.parameters())).shape for name, layer in adaptive(model).items()}


@pytest.mark.parametrize("batch_first", [True, False])
def test_channels_of_a_transformer_layer(batch_first):
    """One parameter set per feature: the layer takes sequences of any length."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
    found = converted_per_channel(layer, torch.randn(2, 5, 16), torch.randn(3, 9, 16))
    assert found == {"activation": (1, 32)}


class Mixer(nn.Module):
    """A block of an MLP-Mixer (Tolstikhin et al., 2021) on patches: one MLP over the tokens, one over the features."""

    def __init__(self, tokens: int, features: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, features, 8, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(features), nn.LayerNorm(features)])
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 12), nn.GELU(), nn.Linear(12, tokens))
        self.over_features = nn.Sequential(nn.Linear(features, 20), nn.GELU(), nn.Linear(20, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.patches(x).flatten(2)).mT
        x = x + self.over_tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return torch.tanh(x + self.over_features(self.norms[1](x)))


def test_channels_of_an_mlp_mixer():
    """In token mixing, tokens are the features."""
    found = converted_per_channel(Mixer(16, 6), IMAGES)
    assert found == {"relu": (6, 1), "over_tokens.1": (1, 12), "over_features.1": (1, 20), "tanh": (1, 6)}


def vision_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5)


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=5)


def convnext() -> nn.Module:
    """It computes in ``(N, H, W, C)`` inside its blocks."""
    blocks = [torchvision.models.convnext.CNBlockConfig(*sizes) for sizes in ((8, 16, 1), (16, None, 1))]
    return torchvision.models.ConvNeXt(blocks, layer_scale=1.0, num_classes=5)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (vision_transformer, {f"encoder.layers.encoder_layer_{layer}.mlp.1": (1, 24) for layer in (0, 1)}),
        (swin, {"features.1.0.mlp.1": (1, 1, 32), "features.3.0.mlp.1": (1, 1, 64)}),
        (convnext, {"features.1.0.block.4": (1, 1, 32), "features.3.0.block.4": (1, 1, 64)}),
    ],
)
def test_channels_of_vision_models(build, expected):
    larger = () if build is vision_transformer else (torch.randn(1, 3, 48, 40),)
    assert converted_per_channel(build(), IMAGES, *larger) == expected


def test_channels_after_convolutions():
    signal = nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2), nn.Tanh(), nn.Flatten(2), nn.Dropout(),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(24, 5), nn.Sigmoid(),
    )  # fmt: skip
    found = converted_per_channel(signal, torch.randn(2, 2, 40), torch.randn(3, 2, 33))
    assert found == {"2": (6, 1), "4": (6, 1), "10": (5,)}
    volume = nn.Sequential(nn.ConvTranspose3d(2, 3, 2), nn.GroupNorm(1, 3), nn.SiLU(), nn.Flatten(), nn.ReLU())
    assert converted_per_channel(volume, torch.randn(2, 2, 3, 3, 3)) == {"2": (3, 1, 1, 1), "4": (192,)}


class Moving(nn.Module):
    """Applies a function to ``(N, 6, 4, 5)`` with six channels, and then an activation."""

    def __init__(self, move) -> None:
        super().__init__()
        self.conv, self.move, self.relu = nn.Conv2d(3, 6, 1), move, nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.move(self.conv(x)))


@pytest.mark.parametrize(
    ("move", "channels"),
    [
        (lambda x: x.permute(0, 2, 3, 1), -1),
        (lambda x: torch.movedim(x, 1, -1), -1),
        (lambda x: x.flatten(2).transpose(1, 2), -1),
        (lambda x: x.reshape(x.shape[0], 2, 3, 4, 5).transpose(1, 2).reshape(x.shape), 1),  # shuffles the channels
        (lambda x: x.flatten(2).mT.unflatten(2, (3, 2)).flatten(2) + 1, -1),  # attention's heads
        (lambda x: torch.cat((*x.chunk(2, dim=1)[::-1], x), dim=1), 1),
        (lambda x: torch.stack([x, x], 2).mean(2), 1),
        (lambda x: F.pad(x, (1, 1))[:, :, 0].contiguous(), 1),
        (lambda x: x.flatten(2).transpose_(1, 2), -1),
        (lambda x: x.mean((2, 3), keepdim=True) * x, 1),
        (lambda x: x.mT @ torch.ones(4, 7), -1),
        (lambda x: x.permute(2, 0, 3, 1), -1),
        (lambda x: x.permute(0, 2, 1, 3), None),  # (N, H, C, W)
        (lambda x: x.unflatten(1, (2, 3)), None),
        (lambda x: x @ x.mT, None),
        (lambda x: torch.cdist(x[..., 0].mT[:, [0, 1, 2, 3, 0, 1]], x[..., 0].mT[:, [0, 1, 2, 3, 0, 1]]), None),  # 6×6
        (lambda x: x.flatten(2) + x.flatten(2).mT.reshape(x.shape[0], 20, 6).mT.contiguous(), 1),
        (lambda x: F.linear(x, torch.ones(5, 5)) + x, None),  # two sources disagree
        (lambda x: torch.einsum("oc,nchw->nohw", torch.ones(6, 6), x), None),
        (lambda x: torch.adjoint(x.flatten(2)[..., :6]), -1),
        (lambda x: torch.rot90(x.flatten(2)[..., :6], 1, (1, 2)), -1),
    ],
)
def test_channels_where_dimensions_move(move, channels):
    model, u = Moving(move), torch.randn(2, 3, 4, 5)
    found = replace_activations(copy.deepcopy(model), example_input=u, sharing="channel")
    if channels is None:
        (kept,) = found.kept
        assert kept.reason == "the channel dimension of its input cannot be inferred; pass channel_dim"
    else:
        assert [layer.channel_dim for layer in adaptive(found.model).values()] == [channels]


def test_channels_that_cannot_be_inferred_must_be_given():
    """The origin of the input is unknown; ``channel_dim`` applies to all activations."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.Tanh())
    found = replace_activations(copy.deepcopy(model), example_input=torch.randn(2, 3, 4), sharing="channel")
    assert names(found.replaced) == ["2"] and [str(one) for one in found.kept] == [
        "0: ReLU, the channel dimension of its input cannot be inferred; pass channel_dim"
    ]
    u, longer = torch.randn(2, 3, 4), torch.randn(2, 7, 4)
    assert converted_per_channel(copy.deepcopy(model), u, longer, channel_dim=-1) == {"0": (1, 4), "2": (1, 4)}
    assert converted_per_channel(model, u, channel_dim=1) == {"0": (3, 1), "2": (3, 1)}


def test_channels_pass_learnable_activations():
    model = nn.Sequential(nn.Linear(4, 6), LEAF((5, 6), "silu"), AHAF((5, 6), "relu"), nn.ReLU())
    assert replace_activations(model, example_input=torch.randn(2, 5, 4), sharing="channel").kept == []
    assert model[3].p1.shape == (1, 6)


# --- what takes their place -------------------------------------------------------------------------------------------


class Curves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu, self.silu, self.tanh = nn.Linear(4, 6), nn.ReLU(), nn.SiLU(), nn.Tanh()
        self.gelu, self.hard = nn.GELU(), nn.Hardtanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hard(self.gelu(self.tanh(self.silu(self.relu(self.linear(x))))))


@pytest.mark.parametrize(
    ("family", "replaced", "parameters", "exact"),
    [
        ("leaf", "relu silu tanh", 4 * 6, True),
        ("ahaf", "relu silu", 2 * 6, True),
        ("affine", "relu silu tanh", 2 * 6, True),
        ("prelu", "relu", 6, False),
        ("swish", "silu", 1, True),
        ("rational", "relu", 7, False),
        ("fneuron", "tanh hard", 18 * 6, False),
    ],
)
def test_every_registered_family(family, replaced, parameters, exact):
    """Parameters are shared as is the family's default; functions without a form are kept."""
    u = torch.randn(3, 4)
    model = Curves()
    found = replace_activations(copy.deepcopy(model), family, example_input=u)
    assert names(found.replaced) == replaced.split()
    assert {one.parameters for one in found.replaced} == {parameters}
    assert all((one.error is None) == exact for one in found.replaced)
    if exact:
        torch.testing.assert_close(outputs(found.model, u), outputs(model, u), rtol=1e-5, atol=1e-5)
    forms = ", ".join(adaptive(found.model)[found.replaced[0].name].forms)
    for one in found.kept:
        assert f"{found.family} cannot start as {one.original.lower()}; it starts as: {forms}" in one.reason


def test_the_error_of_a_start_is_measured():
    found = replace_activations(Curves(), "prelu", example_input=torch.randn(3, 4))
    assert found.replaced[0].error == pytest.approx(0.25 * 15)
    found = replace_activations(Curves(), "swish", example_input=torch.randn(3, 4), nearest=True)
    u = torch.linspace(-15, 15, 100_001, dtype=torch.float64)
    error = (F.gelu(u) - u * torch.sigmoid(1.702 * u)).abs().max().item()
    assert [(one.name, one.error) for one in found.replaced] == [("silu", None), ("gelu", pytest.approx(error))]


class Steep(Adaptive):
    """A custom family, at first unregistered."""

    family = "steep"
    usual_sharing = "channel"
    parameter_names = ("slope",)
    forms = {"hardtanh": (1.0,)}

    def formula(self, u: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return (parameters[0] * u).clamp(-1, 1)


def test_custom_families(monkeypatch):
    for with_ in (Steep, "steep"):
        if with_ == "steep":
            monkeypatch.setitem(ACTIVATIONS, "steep", learnable(Steep, "hardtanh"))
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Hardtanh(), nn.Hardtanh(-2, 2), nn.ReLU())
        found = replace_activations(model, with_, example_input=IMAGES)
        assert found.family == "Steep" and [(one.name, one.parameters) for one in found.replaced] == [
            ("1", 5),
            ("2", 5),
        ]
        assert [one.error for one in found.replaced] == [None, 1.0], "the second one has other bounds"
        assert names(found.kept) == ["3"]


def test_modules_of_any_class():
    """A class is called without arguments, a function with the shape and name of the replaced activation."""
    u, asked = torch.randn(3, 4), []

    def make(shape: tuple[int, ...], form: str) -> nn.Module:
        asked.append((shape, form))
        return nn.PReLU(shape[0])

    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 6), nn.GLU()).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = replace_activations(model, make, example_input=u.double())
    assert asked == [((6,), "gelu")] and model[1].weight.dtype == torch.float64
    assert [str(one) for one in found.replaced] == ["1: GELU → PReLU, 6, 6 parameters"]
    assert [str(one) for one in found.kept] == ["3: GLU, its output has half the size of its input"]
    model = Functional()
    original = copy.deepcopy(model)
    found = replace_activations(model, nn.Identity, example_input=IMAGES)
    assert len(found.replaced) == 5 and found.parameters == 0 and found.difference > 0.1
    assert all(type(getattr(model, one.name)) is nn.Identity for one in found.replaced)
    features = original.conv(IMAGES).mean((2, 3))
    for linear, scale in zip(original.linears, (2, 1, 1, 1), strict=True):
        features = scale * linear(features)
    for converted in (model, copy.deepcopy(model)):
        torch.testing.assert_close(outputs(converted, IMAGES), features)


def test_converting_again_counts_modules_of_any_class():
    class Three(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.gelu(F.softplus(F.relu(x)))

    class Softplus(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 3

    model, u = Three(), torch.randn(5, 3)
    replace_activations(model, "ahaf", example_input=u)
    replace_activations(model, lambda shape, form: Softplus() if form == "softplus" else nn.GELU(), example_input=u)
    expected = F.gelu(F.relu(u) + 3)
    torch.testing.assert_close(model(u), expected)
    replace_activations(model, "leaf", example_input=u, nearest=True)
    for converted in (model, copy.deepcopy(model)):
        assert (outputs(converted, u) - expected).abs().max() < 0.03


# --- what survives ----------------------------------------------------------------------------------------------------


def test_state_dtype_and_randomness_survive():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)).double()
    model[1].eval()
    before, chance = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    replace_activations(model, example_input=IMAGES.double())
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items() if name in before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert {p.dtype for p in model.parameters()} == {torch.float64} and not model[2]._forward_hooks
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_hooks_survive():
    """Each activation that replaces a use of a module has its hooks; handles work for the one in its place."""
    seen: list[nn.Module] = []
    block = torchvision.models.resnet.BasicBlock(3, 3)
    handles = [
        block.relu.register_forward_hook(lambda module, args, output: seen.append(module)),
        block.relu.register_forward_pre_hook(lambda module, args, kwargs: seen.append(module), with_kwargs=True),
        block.relu.register_full_backward_hook(lambda module, before, after: seen.append(module)),
    ]
    shapes = []
    handles.append(block.relu.register_forward_pre_hook(lambda module, args: shapes.append(args[0].shape)))
    assert names(replace_activations(block, example_input=IMAGES).replaced) == ["relu", "relu_2"]
    assert set(shapes) == {IMAGES.shape}, "hooks see the example alone"
    for expected in ([3, 3], [0, 3]):
        seen.clear()
        block(IMAGES).sum().backward()
        assert [seen.count(module) for module in (block.relu, block.relu_2)] == expected and len(seen) == sum(expected)
        for handle in handles:
            handle.remove()


def test_parameters_have_the_memory_format_of_the_inputs():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(memory_format=torch.channels_last)
    replace_activations(model, example_input=IMAGES.contiguous(memory_format=torch.channels_last))
    assert model[1].p1.stride() == (1, 120, 4)


def test_models_that_rely_on_in_place_changes_are_warned():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = 2 * x
            return self.relu(x) + x

    with pytest.warns(UserWarning, match="relies on an activation that modifies its input in place"):
        found = replace_activations(Counting(), example_input=torch.randn(5, 3))
    assert found.difference > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace_activations(nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), example_input=torch.randn(5, 3))


@pytest.mark.parametrize("sharing", SHARING)
def test_weights_load_into_a_newly_converted_model(sharing):
    def converted() -> nn.Module:
        model = nn.Sequential(torchvision.models.resnet.BasicBlock(3, 3), Functional())
        replace_activations(model, example_input=IMAGES, sharing=sharing)
        return model.eval()

    model = converted()
    with torch.no_grad():
        for layer in adaptive(model).values():
            layer.load_state_dict({name: value + 0.1 for name, value in layer.state_dict().items()})
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = converted()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IMAGES), model(IMAGES)) and repr(other) == repr(model)
    copied = copy.deepcopy(model)
    copied[0].relu_2.p4.data += 1
    assert not torch.equal(copied(IMAGES), model(IMAGES)), "a copy has activations of its own"


@pytest.mark.parametrize("sharing", SHARING)
def test_other_sizes(sharing):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    original = copy.deepcopy(model)
    replace_activations(model, example_input=IMAGES, sharing=sharing)
    larger = torch.randn(2, 3, 40, 36)
    if sharing == "element":
        with pytest.raises(RuntimeError, match="size"):
            model(larger)
    else:
        torch.testing.assert_close(model(larger), original(larger), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_export():
    """To torch's own format and to ONNX, with any batch size; the graph holds the formula alone."""
    model = nn.Sequential(torchvision.models.resnet.BasicBlock(3, 3), Functional())
    replace_activations(model, example_input=IMAGES, sharing="channel")
    model.eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    images = torch.randn(5, 3, 32, 32)
    exported = torch.export.export(model, (IMAGES,), dynamic_shapes=dynamic)
    torch.testing.assert_close(exported.module()(images), model(images))
    assert not any("expand" in str(node.target) for node in exported.graph.nodes)
    program = torch.onnx.export(model, (IMAGES,), dynamo=True, dynamic_shapes=dynamic, verbose=False)
    onnx.checker.check_model(program.model_proto)
    with np.errstate(over="ignore", invalid="ignore"):  # the evaluator's sigmoid computes both of its branches
        (found,) = ReferenceEvaluator(program.model_proto).run(
            None, {program.model_proto.graph.input[0].name: images.numpy()}
        )
    np.testing.assert_allclose(found, model(images).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compile():
    model = nn.Sequential(torchvision.models.resnet.BasicBlock(3, 3), Functional()).eval()
    replace_activations(model, example_input=IMAGES, sharing="channel")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(IMAGES), model(IMAGES))


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_trains_with_autocast_and_weight_decay(sharing, dtype):
    torch.manual_seed(1)
    model = nn.Sequential(torchvision.models.resnet.BasicBlock(3, 3), Functional())
    replace_activations(model, example_input=IMAGES, sharing=sharing)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)  # on everything
    labels = torch.tensor([0, 3])
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = cross_entropy(4 * model(IMAGES), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(not torch.equal(start[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_models(dtype):
    """2^16 is infinite in float16, also from a float32 checkpoint, but ReLU's form still computes ReLU."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    original, u = copy.deepcopy(model), torch.randn(6, 4)
    u[0] = 0
    replace_activations(model, example_input=u)
    converted = copy.deepcopy(original).to(dtype)
    replace_activations(converted, example_input=u.to(dtype))
    converted.load_state_dict(model.state_dict())
    expected = original.to(dtype)(u.to(dtype))
    for low in (converted, model.to(dtype)):
        assert {p.dtype for p in low.parameters()} == {dtype}
        torch.testing.assert_close(low(u.to(dtype)), expected)
        low(u.to(dtype)).sum().backward()
        assert all(p.grad.isfinite().all() for p in low.parameters())


def test_a_zero_in_float16_does_not_give_nan():
    for layer in (LEAF((3,), "relu").half(), AHAF((3,), "relu").half()):
        u = torch.tensor([[0.0, -1.0, 2.0]], dtype=torch.float16, requires_grad=True)
        y = layer(u)
        assert y.tolist() == [[0.0, 0.0, 2.0]]
        y.sum().backward()
        assert u.grad.tolist() == [[0.5, 0.0, 1.0]]


# --- arguments --------------------------------------------------------------------------------------------------------


def test_examples_of_every_kind():
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, list[torch.Tensor]]:
            return {"sum": [torch.relu(a + b)]}

    a, b = torch.randn(2, 5, 3)
    for example in ((a, b), {"a": a, "b": b}):
        model = Sum()
        found = replace_activations(model, example_input=example)
        assert names(found.replaced) == ["relu"] and 0 <= found.difference < 1e-5
        torch.testing.assert_close(model(a, b)["sum"][0], torch.relu(a + b), rtol=1e-5, atol=1e-5)


def test_outputs_of_every_kind():
    @dataclass
    class Output:
        score: torch.Tensor
        parts: dict[str, torch.Tensor]

    class Scoring(nn.Module):
        def forward(self, x: torch.Tensor) -> Output:
            y = F.relu(x)
            return Output(F.tanh(y), {"y": y})

    model, u = Scoring(), torch.randn(5, 3)
    found = replace_activations(model, example_input=u)
    assert names(found.replaced) == ["relu", "tanh"] and 0 < found.difference < 1e-5
    torch.testing.assert_close(model(u).score, F.tanh(F.relu(u)))
    found = replace_activations(Scoring(), nn.Identity, example_input=u)
    assert found.difference == (u - F.relu(u)).abs().max().clamp(min=(u - F.tanh(F.relu(u))).abs().max())


def test_bad_arguments_are_explained():
    model, u = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)
    with pytest.raises(
        ValueError, match="unknown family 'relu'; known: ahaf, leaf, affine, prelu, swish, rational, fneuron"
    ):
        replace_activations(model, "relu", example_input=u)
    with pytest.raises(ValueError, match="unknown sharing 'row'; known: element, channel, layer"):
        replace_activations(model, example_input=u, sharing="row")
    with pytest.raises(ValueError, match=r"does not run on example_input: RuntimeError: .*shapes"):
        replace_activations(model, example_input=torch.randn(2, 5))
    for activation in (nn.ReLU(), LEAF((4,), "relu")):
        with pytest.raises(ValueError, match=f"is itself an activation, {type(activation).__name__}"):
            replace_activations(activation, example_input=u)
    for options in ({"sharing": "layer"}, {"channel_dim": -1}, {"nearest": True}):
        with pytest.raises(ValueError, match="apply only to families of learnable activations"):
            replace_activations(model, nn.PReLU, example_input=u, **options)
    for with_ in (3, nn.PReLU()):
        with pytest.raises(
            TypeError, match="with_ must be a family's name, a class or a function that makes a module, not "
        ):
            replace_activations(model, with_, example_input=u)
    with pytest.raises(TypeError, match=r"in_features.*; with_ may also be a function of shape and form"):
        replace_activations(model, nn.Linear, example_input=u)
    with pytest.raises(TypeError, match="with_ must make a torch module; for relu it made 'relu'"):
        replace_activations(model, lambda shape, form: form, example_input=u)
    with pytest.raises(TypeError, match="sharing must be one of element, channel, layer, not 1"):
        replace_activations(model, example_input=u, sharing=1)
    with pytest.raises(TypeError, match="channel_dim must be 1 or -1, or None to infer it, not 'last'"):
        replace_activations(model, example_input=u, channel_dim="last")
    with pytest.raises(TypeError, match="model must be a torch module, not <function relu"):
        replace_activations(F.relu, example_input=u)
    assert not any(module._forward_hooks for module in model.modules()) and model.training and not adaptive(model)
    assert type(model[1]) is nn.ReLU
    (kept,) = replace_activations(model, example_input=u, sharing="channel", channel_dim=3).kept
    assert kept.reason == "its input has no channel dimension 3 after the batch"


@pytest.mark.slow
def test_needs_only_torch_numpy_numba_and_safetensors():
    code = """
import sys
others = ["snakemake", "pandas", "matplotlib", "seaborn", "scipy", "pydantic", "yaml", "torchvision", "tqdm", "PIL"]
sys.modules.update(dict.fromkeys(others))
import torch, leaf
found = [name for name, module in sys.modules.items() if module and name.split(".")[0] in [*others, "numba"]]
assert not found, found
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
leaf.replace_activations(model, example_input=torch.randn(2, 4))
optimizers = [torch.optim.Adam(leaf.parameter_groups(model, 1e-3, of=of)) for of in ("activations", "others")]
leaf.two_stage_step(*optimizers, lambda: model(torch.randn(2, 4)).sum())
print(sorted(name for name in leaf.__all__ if not hasattr(leaf, name)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
