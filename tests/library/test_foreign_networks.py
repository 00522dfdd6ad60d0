"""Every kind of network that people bring is pruned by every method, held, and made smaller; what cannot be is one line."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import autosparse
from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.mask import violations
from autosparse.models.masks.prunable import layers
from autosparse.models.networks.calls import logits_of
from autosparse.models.networks.wrappers import plain
from tests.library import foreign_networks
from tests.library.foreign_networks import KINDS, Wrapped

Batches = list[tuple[Tensor, Tensor]]

QUICK = {"snip", "grasp", "synflow", "ntk_sap", "growth"}  # all of them in `make test-slow`

# What is prunable beside convolutions and linear layers, and what is not.
WEIGHTS = {
    "frozen": {"2.weight", "6.weight"},
    "spare": {"body.0.weight", "body.2.weight", "body.6.weight"},
    "lstm": {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "out.weight"},
    "packed_attention": {"embed.weight", "attention.in_proj_weight", "attention.out_proj.weight", "proj.weight", "out.weight"},
    "spectral": {"0.weight", "2.parametrizations.weight.original", "6.weight"},
    "pruned_before": {"0.weight", "2.weight_orig", "6.weight"},
    "data_parallel": {"0.weight", "2.weight", "6.weight"},
    "tied": {"1.weight", "5.weight"},
    "transposed": {"0.weight", "2.weight", "6.weight"},
    "own_matrix": {"mix", "out.weight"},
}


def network(kind: str, seed: int = 0) -> nn.Module:
    with seeding.scoped(seed, kind):
        return KINDS[kind]()


@pytest.fixture
def batches() -> Batches:
    stream = seeding.generator(0, "foreign")
    draw = [(torch.rand(16, 1, 8, 8, generator=stream), torch.randint(0, 10, (16,), generator=stream)) for _ in range(2)]
    return [(images * (1 + labels.view(-1, 1, 1, 1)), labels) for images, labels in draw]


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
@pytest.mark.parametrize("method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(CRITERIA)])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_method_prunes_it(kind: str, method: str, batches: Batches) -> None:
    mine = network(kind)
    if (method, kind) == ("phew", "transposed"):
        with pytest.raises(autosparse.AutosparseError, match="for random walks"):
            autosparse.prune(mine, batches, method=method, density=0.1)
        return
    found = autosparse.prune(mine, batches, method=method, density=0.1, look_ahead_steps=2, look_ahead_lr=0.01)
    assert found.kept == keep_count(0.1, found.total)
    assert set(found) == WEIGHTS.get(kind, set(found))


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_is_left_as_it_was(kind: str, batches: Batches) -> None:
    mine = network(kind)
    if kind == "lazy":
        mine(batches[0][0])
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    known, modes = set(vars(plain(mine))), [module.training for module in mine.modules()]
    autosparse.prune(mine, batches, method="snip", density=0.1)
    assert all(torch.equal(value, mine.state_dict()[name]) for name, value in before.items())
    assert set(vars(plain(mine))) == known and [module.training for module in mine.modules()] == modes
    assert all(param.grad is None for param in mine.parameters())


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_held_for_twenty_steps_and_made_smaller(kind: str, batches: Batches) -> None:
    mine = network(kind)
    found = autosparse.prune(mine, batches, method="synflow", density=0.1)
    if kind == "half":
        mine.float()
    optimizer = torch.optim.AdamW([param for param in mine.parameters() if param.requires_grad], lr=1e-3)
    autosparse.hold(mine, found, optimizer)
    for step in range(20):
        images, labels = batches[step % 2]
        optimizer.zero_grad()
        cross_entropy(logits_of(mine(images)), labels).backward()
        optimizer.step()
    assert violations(plain(mine), found) == 0
    mine.eval()
    small = autosparse.compact(mine, batches[0][0], found)
    with torch.no_grad():
        wanted, got = logits_of(mine(batches[0][0])), logits_of(small(batches[0][0]))
    assert torch.allclose(got, wanted, atol=1e-5 * float(wanted.abs().max()))
    assert sum(map(torch.numel, small.parameters())) <= sum(map(torch.numel, mine.parameters()))


def test_bounded_activations_are_cut_as_unbounded_ones(batches: Batches) -> None:
    twins = [network(kind, seed=3) for kind in ("relu6", "plain_relu")]
    twins[0].load_state_dict(twins[1].state_dict())
    for method in ("synflow", "smallest_paths"):
        one, other = (autosparse.prune(twin, batches, method=method, density=0.1).layer_densities() for twin in twins)
        assert all(abs(one[name] - other[name]) < 0.03 for name in one)


@pytest.mark.parametrize("method", ["synflow", "smallest_paths"])
def test_no_layer_is_emptied_behind_a_group_norm(method: str, batches: Batches) -> None:
    assert not autosparse.prune(network("group_norm"), batches, method=method, density=0.1).collapsed_layers()


@pytest.mark.parametrize("kind", ["packed_attention", "function_attention"])
def test_the_full_mask_of_attention_is_effective(kind: str, batches: Batches) -> None:
    mine = network(kind)
    whole = autosparse.prune(mine, batches, method="magnitude", density=1.0)
    assert whole.effective_density(mine, batches[0][0]) == 1.0


def test_the_head_is_what_runs_last(batches: Batches) -> None:
    found = autosparse.prune(network("head_first"), batches, method="snip", density=0.5, head=False)
    assert list(found) == ["body.0.weight"]
    order = list(autosparse.prune(network("head_first"), batches, method="snip", density=0.5))
    assert order == ["body.0.weight", "head.weight"]


def test_frozen_and_unused_weights_by_choice(batches: Batches) -> None:
    assert "0.weight" in autosparse.prune(network("frozen"), batches, method="magnitude", density=0.5, frozen=True)
    found = autosparse.prune(network("spare"), batches, method="magnitude", density=0.5, unused=True)
    assert "spare.weight" in found
    left = autosparse.prune(network("spare"), batches, method="magnitude", density=0.5).about.left_out
    assert left == {"spare.weight": "unused in evaluation"}


def test_zeros_at_initialization_are_said_and_do_not_decide(batches: Batches) -> None:
    with pytest.warns(autosparse.MaskWarning, match=r"6\.weight is zero at initialization"):
        found = autosparse.prune(mine := network("zero_head"), batches, method="snip", density=0.1)
    assert not mine[6].weight.any()  # type: ignore[index]
    assert all(0 < share < 1 for share in found.layer_densities().values())


@pytest.mark.parametrize("pattern", ["2", "2.*", "2.weight"])
def test_ignored_layers_stay_dense(pattern: str, batches: Batches) -> None:
    found = autosparse.prune(network("half"), batches, method="magnitude", density=0.5, ignore=pattern)
    assert set(found) == {"0.weight", "6.weight"} and found.about.left_out == {"2.weight": "ignored"}


def test_an_ignored_layer_may_be_the_layer_itself(batches: Batches) -> None:
    mine = network("plain_relu")
    found = autosparse.prune(mine, batches, method="magnitude", density=0.5, ignore=[mine[0]])  # type: ignore[index]
    assert "0.weight" not in found


def test_weight_norm_is_refused_and_ignorable(batches: Batches) -> None:
    mine = foreign_networks.weight_normed()
    with pytest.raises(autosparse.AutosparseError, match="remove_parametrizations"):
        autosparse.prune(mine, batches, density=0.1)
    assert set(autosparse.prune(mine, batches, density=0.1, ignore="2")) == {"0.weight", "6.weight"}
    assert layers(mine)["2.parametrizations.weight.original1"] == "computed"


def test_one_scoring_cuts_at_many_densities(batches: Batches) -> None:
    two = autosparse.prune(network("plain_relu"), batches, method="snip", density=[0.2, 0.1])
    assert [mask.kept for mask in two] == [keep_count(0.2, two[0].total), keep_count(0.1, two[0].total)]
    assert all(not (two[1][name] & ~two[0][name]).any() for name in two[0])


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
def test_densities_of_layers_by_hand(batches: Batches) -> None:
    found = autosparse.prune(network("plain_relu"), batches, method="magnitude", density={"0.weight": 0.5, "2.weight": 0.0})
    assert int(found["0.weight"].sum()) == 32 * 9 // 2 and not found["2.weight"].any() and found["4.weight"].all()


def test_a_loss_of_ones_own_and_batches_of_any_kind() -> None:
    mine = nn.Conv2d(1, 4, 3, padding=1)
    batch = {"scan": torch.rand(2, 1, 8, 8), "where": torch.rand(2, 4, 8, 8)}

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch["scan"]) - batch["where"]).square().mean()

    found = autosparse.prune(nn.Sequential(mine), [batch], method="snip", density=0.5, loss=loss, example=batch["scan"])
    loss(mine, batch).backward()
    weight, gradient = mine.weight, mine.weight.grad
    assert gradient is not None
    by_hand = (weight * gradient).abs().flatten().topk(18).indices
    assert set(found["0.weight"].flatten().nonzero().flatten().tolist()) == set(by_hand.tolist())


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
def test_a_function_of_ones_own_is_a_method(batches: Batches) -> None:
    def largest(network: nn.Module, batches: Any, generator: torch.Generator, *, head: bool = True, density: float) -> dict[str, Tensor]:
        return {name: param.detach().abs() for name, param in network.named_parameters() if param.dim() > 1}

    mine = network("plain_relu")
    own, known = (autosparse.prune(mine, batches, method=method, density=0.1) for method in (largest, "magnitude"))
    assert own.checksum == known.checksum and own.about.method == "largest"


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
@pytest.mark.parametrize("method", ["random", "erk", "magnitude"])
def test_some_methods_need_nothing_but_the_network(method: str) -> None:
    assert autosparse.prune(network("plain_relu"), method=method, density=0.1).kept == keep_count(0.1, 56224)


def test_an_example_is_enough_for_methods_without_data() -> None:
    found = autosparse.prune(network("plain_relu"), method="synflow", density=0.1, example=torch.zeros(1, 1, 8, 8))
    assert found.kept == keep_count(0.1, found.total)


@pytest.mark.parametrize("batch", [torch.rand(4, 1, 8, 8), {"x": torch.rand(4, 1, 8, 8)}, [torch.rand(4, 1, 8, 8)]])
def test_methods_without_data_take_batches_without_labels(batch: Any) -> None:
    mine = Wrapped(lambda self, x: self.body(x), body=network("plain_relu"))
    assert autosparse.prune(mine, [batch], method="synflow", density=0.1).kept == keep_count(0.1, 56224)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "density": ({"density": 1.5}, "density: 1.5 is not allowed; allowed: > 0 and <= 1"),
    "no density": ({"density": []}, "at least one number"),
    "method": ({"method": "sinp"}, "'sinp' is not known; did you mean 'snip'?"),
    "no method": ({"method": 7}, "method: 'int' is not allowed"),
    "layer": ({"density": {"9.weight": 0.1}}, "density: '9.weight' is not known"),
    "share": ({"density": {"0.weight": 2}}, "density of 0.weight: 2 is not allowed"),
    "pattern": ({"ignore": "5.*"}, "ignore: '5.*' is not known"),
    "control": ({"control": "shufle"}, "control: 'shufle' is not known; did you mean 'shuffle'?"),
    "floor": ({"min_per_layer": 10**6, "density": 0.1}, "min_per_layer: 1000000 is not allowed"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_one_line(case: str, batches: Batches) -> None:
    options, message = BAD[case]
    with pytest.raises(autosparse.AutosparseError) as caught:
        autosparse.prune(network("plain_relu"), batches, **{"density": 0.1, "method": "snip", **options})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def bad_batches(kind: str) -> Any:
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 9])
    return {
        "none": [],
        "a tensor": images,
        "other channels": [(torch.rand(4, 3, 8, 8), labels)],
        "too many classes": [(images, labels + 1)],
        "real labels": [(images, torch.rand(4))],
        "no labels": [images],
        "NaN images": [(images * float("nan"), labels)],
        "one batch": (images, labels),
        "arrays": [(images.numpy(), labels.numpy())],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "an example, or at least one batch, for snip"),
        ("a tensor", "batches: 'Tensor' is not allowed"),
        ("one batch", "batches: 'a tuple of tensors' is not allowed; allowed: a list of batches: [(inputs, labels)]"),
        ("arrays", "batches: 'NumPy arrays' is not allowed; allowed: tensors"),
        ("other channels", "network: its forward pass raised RuntimeError"),
        ("too many classes", "10 outputs for a label 10"),
        ("real labels", "class numbers (int64)"),
        ("no labels", "without labels is not allowed"),
        ("NaN images", "loss: nan is not allowed"),
    ],
)
def test_bad_batches_are_one_line(kind: str, message: str) -> None:
    with pytest.raises(autosparse.AutosparseError) as caught:
        autosparse.prune(network("plain_relu"), bad_batches(kind), method="snip", density=0.1)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bad_networks_are_one_line(batches: Batches) -> None:
    mine = network("plain_relu")
    with torch.no_grad():
        mine[2].weight[0, 0, 0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(autosparse.AutosparseError, match=r"network\.2\.weight: .*finite weights"):
        autosparse.prune(mine, batches, density=0.1)
    with pytest.raises(autosparse.AutosparseError, match="at least one prunable"):
        autosparse.prune(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), batches, method="magnitude", density=0.1)


def test_the_persons_line_is_shown(batches: Batches) -> None:
    mine = foreign_networks.raises((1, 8, 8))
    with pytest.raises(autosparse.AutosparseError) as caught:
        autosparse.prune(mine, batches, method="snip", density=0.1)
    assert "foreign_networks.py:" in str(caught.value) and 'self.body(x)[:, "no such column"]' in str(caught.value)
    assert "Traceback" in caught.value.details["traceback"]


def test_warnings_can_be_turned_off(batches: Batches) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = autosparse.prune(network("zero_head"), batches, method="snip", density=0.1, warn=False)
    assert found.about.notes
