"""Training procedures in custom loops: parameter groups, and two stages per minibatch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize, prune

import leaf
from leaf.experiment.procedures import OPTIMIZERS
from leaf.experiment.stages import training_stages
from leaf.procedures import training_step

IMAGES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6)


def small_model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(4, 5), leaf.LEAF((5,), "tanh"), nn.BatchNorm1d(5), nn.Linear(5, 5), leaf.AHAF((5,), "silu")
    )


def settings(model: nn.Module, groups: list[dict]) -> dict[str, tuple]:
    """Learning rate and weight decay by parameter name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = [(names[p], (group["lr"], group.get("weight_decay"))) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found)), "no parameter twice"
    return dict(found)


def test_parameter_groups():
    model = small_model()
    found = settings(model, leaf.parameter_groups(model, learning_rate=0.5))
    assert list(found.keys() - dict(model.named_parameters()).keys()) == []
    for name, parameter in model.named_parameters():
        layer, kind = name.split(".")
        rate = pytest.approx(0.5 / 1000) if kind in ("p2", "p4") else 0.5
        assert found[name] == (rate, 0.0 if layer in "14" else None), parameter
    found = settings(
        model,
        leaf.parameter_groups(
            model, 0.5, slow_learning_rate=0.25, weight_decay=0.1, activation_weight_decay=0.2
        ),
    )  # fmt: skip
    assert found["0.weight"] == found["2.bias"] == (0.5, 0.1) and found["1.p1"] == found["4.gamma"] == (0.5, 0.2)
    assert found["1.p2"] == found["1.p4"] == (0.25, 0.2)
    activations = settings(model, leaf.parameter_groups(model, 0.5, of="activations"))
    others = settings(model, leaf.parameter_groups(model, 0.5, of="others"))
    assert sorted(activations) == ["1.p1", "1.p2", "1.p3", "1.p4", "4.beta", "4.gamma"]
    assert sorted([*activations, *others]) == sorted(name for name, _ in model.named_parameters())
    assert len(leaf.parameter_groups(nn.Linear(3, 3), 0.5)) == 1
    with pytest.raises(ValueError, match="of: unknown value 'weights'; known: all, activations, others"):
        leaf.parameter_groups(model, 0.5, of="weights")


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(5))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values + self.offset


def test_slow_parameters_stay_slow_when_pruned_or_parametrized():
    model = small_model()
    prune.l1_unstructured(model[1], "p2", amount=2)
    prune.l1_unstructured(model[1], "p1", amount=2)
    parametrize.register_parametrization(model[1], "p4", Doubled())
    parametrize.register_parametrization(model[4], "gamma", Doubled())
    found = settings(model, leaf.parameter_groups(model, 0.5, weight_decay=0.1))
    slow = {name for name, (rate, _) in found.items() if rate == pytest.approx(0.5 / 1000)}
    assert slow == {"1.p2_orig", "1.parametrizations.p4.original", "1.parametrizations.p4.0.offset"}
    assert found["1.p1_orig"] == found["1.p3"] == found["4.parametrizations.gamma.original"] == (0.5, 0.0)
    assert {decay for name, (_, decay) in found.items() if name[0] not in "14"} == {0.1}
    assert {decay for name, (_, decay) in found.items() if name[0] in "14"} == {0.0}
    torch.optim.Adam(leaf.parameter_groups(model, 0.5))
    model(torch.randn(6, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_groups_equal_the_papers_p24sl(optimizer):
    network = leaf.LeNet5(activation="leaf-tanh")
    (stage,) = training_stages(network, "p24sl", optimizer)
    published = settings(network, stage.optimizer.param_groups)
    rates = {"adam": {1e-3, 1e-6}, "rmsprop": {1e-4, 1e-5}, "adam-3e-4": {3e-4, 3e-7}, "adam-3e-3": {3e-3, 3e-6}}
    assert {rate for rate, _ in published.values()} == rates[optimizer]
    assert all((rate < 1e-4) == (name[-2:] in ("p2", "p4")) for name, (rate, _) in published.items())
    if optimizer == "adam":
        ours = settings(network, leaf.parameter_groups(network, 1e-3))
        assert {name: pytest.approx(rate) for name, (rate, _) in ours.items()} == {
            name: rate for name, (rate, _) in published.items()
        }


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RMSprop, torch.optim.SGD, torch.optim.Adagrad],
)
def test_groups_are_for_any_optimizer(optimizer):
    """The optimizer's weight decay does not change activation parameters without a gradient."""
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    step = optimizer(leaf.parameter_groups(model, learning_rate=0.1), weight_decay=0.1)
    (0.0 * model(torch.randn(6, 4)).sum()).backward()
    step.step()
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert "0.weight" in moved and not [name for name in moved if name[0] in "14"]


def test_two_stages_by_hand():
    """First a gradient step of the activations; then one of the others, with the gradient of the new loss."""
    model = small_model()[:2]
    u, rate = torch.randn(6, 4), 0.1
    by_hand = copy.deepcopy(model)
    for names in (["1.p1", "1.p2", "1.p3", "1.p4"], ["0.weight", "0.bias"]):
        parameters = [by_hand.get_parameter(name) for name in names]
        expected = by_hand(u).square().mean()
        for parameter, gradient in zip(parameters, torch.autograd.grad(expected, parameters), strict=True):
            parameter.data -= rate * gradient
    groups = {
        of: leaf.parameter_groups(model, rate, slow_learning_rate=rate, of=of) for of in ("activations", "others")
    }
    activations, others = (torch.optim.SGD(groups[of]) for of in groups)
    found = leaf.two_stage_step(activations, others, lambda: model(u).square().mean())
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter)


def test_two_stages_as_the_papers():
    """Bitwise equal to DSPT in the grid."""
    torch.manual_seed(3)
    grid = leaf.LeNet5(activation="leaf-tanh")
    own = copy.deepcopy(grid)
    stages = training_stages(grid, "dspt-p24sl", "adam")
    activations, others = (
        torch.optim.Adam(leaf.parameter_groups(own, 1e-3, slow_learning_rate=1e-6, of=of), foreach=False)
        for of in ("activations", "others")
    )
    for _ in range(3):
        theirs = training_step(grid, stages, IMAGES, LABELS)
        ours = leaf.two_stage_step(activations, others, lambda: cross_entropy(own(IMAGES), LABELS))
        assert torch.equal(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), grid.parameters(), strict=True))


def test_frozen_parameters_stay_frozen():
    model = small_model()
    model[0].requires_grad_(False)
    model[1].p3.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    activations, others = (
        torch.optim.Adam(leaf.parameter_groups(model, 0.1, of=of)) for of in ("activations", "others")
    )
    leaf.two_stage_step(activations, others, lambda: model(torch.randn(6, 4)).square().sum())

    def failing() -> torch.Tensor:
        raise KeyError("no loss")

    with pytest.raises(KeyError):
        leaf.two_stage_step(activations, others, failing)
    for name, parameter in model.named_parameters():
        frozen = name in ("0.weight", "0.bias", "1.p3")
        assert parameter.requires_grad == (not frozen) and torch.equal(parameter, before[name]) == frozen, name
