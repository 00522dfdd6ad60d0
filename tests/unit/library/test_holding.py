"""Zeros that stay zeros: by every kind of optimizer, through what people do to a network, and let go of again."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune
from torch.optim import Optimizer

from autosparse.library.compaction import compact
from autosparse.library.holding import Held, hold, release
from autosparse.library.mask import Mask, MaskWarning
from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.masks.mask import prunable
from tests.marks import quick

STEPS = 1000


def small(seed: int = 0) -> nn.Sequential:
    """8x8 grey images, four classes."""
    with seeding.scoped(seed, "test"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)
        )


def mask_of(network: nn.Module, density: float = 0.3, seed: int = 1) -> Mask:
    stream = seeding.generator(seed, "mask")
    return Mask.of({name: torch.rand(param.shape, generator=stream) < density for name, param in prunable(network).items()})


def batches(count: int, seed: int = 2) -> Iterable[tuple[Tensor, Tensor]]:
    stream = seeding.generator(seed, "batches")
    for _ in range(count):
        yield torch.randn(4, 1, 8, 8, generator=stream), torch.randint(0, 4, (4,), generator=stream)


def train(network: nn.Module, optimizers: Iterable[Optimizer], steps: int, seed: int = 2) -> None:
    """The plainest loop."""
    for images, labels in batches(steps, seed):

        def loss(images: Tensor = images, labels: Tensor = labels) -> float:
            for optimizer in optimizers:
                optimizer.zero_grad()
            value = functional.cross_entropy(network(images), labels)
            value.backward()
            return value.item()

        loss()
        for optimizer in optimizers:
            optimizer.step(loss) if isinstance(optimizer, torch.optim.LBFGS) else optimizer.step()


def muon(network: nn.Module) -> list[Optimizer]:
    matrices = [param for param in network.parameters() if param.dim() == 2]
    others = [param for param in network.parameters() if param.dim() != 2]
    return [torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1), torch.optim.AdamW(others, lr=0.01)]


OPTIMIZERS: dict[str, Callable[[nn.Module], list[Optimizer]]] = {
    "sgd": lambda net: [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.01)],
    "sgd-fused": lambda net: [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01, fused=True)],
    "sgd-foreach": lambda net: [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01, foreach=True)],
    "adam": lambda net: [torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1, amsgrad=True)],
    "adamw": lambda net: [torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)],
    "adamw-fused": lambda net: [torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1, fused=True)],
    "adamw-foreach": lambda net: [torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1, foreach=True)],
    "adafactor": lambda net: [torch.optim.Adafactor(net.parameters(), lr=0.01, weight_decay=0.1)],
    "muon": muon,
    "rmsprop": lambda net: [torch.optim.RMSprop(net.parameters(), lr=0.001, momentum=0.9, centered=True)],
    "rprop": lambda net: [torch.optim.Rprop(net.parameters(), lr=0.001)],
    "asgd": lambda net: [torch.optim.ASGD(net.parameters(), lr=0.01, weight_decay=0.1)],
}


@pytest.mark.parametrize("name", quick(OPTIMIZERS, ["sgd", "adamw", "adafactor", "muon"]))
@pytest.mark.parametrize("later", [False, True], ids=["given", "made-later"])
def test_a_thousand_steps_without_a_violation(name: str, later: bool) -> None:
    network = small()
    mask, keys = mask_of(network), list(network.state_dict())
    before = network[6].weight.detach().clone()
    if later:
        held = hold(network, mask)
        optimizers = OPTIMIZERS[name](network)
    else:
        optimizers = OPTIMIZERS[name](network)
        held = hold(network, mask, next(one for one in optimizers if any(p is network[6].weight for p in one.param_groups[0]["params"])))
    train(network, optimizers, STEPS)
    assert held.violations() == 0
    assert list(network.state_dict()) == keys
    assert all(not param.detach()[~mask[key]].any() for key, param in prunable(network).items())
    assert all(param.isfinite().all() for param in network.parameters())
    kept = mask["6.weight"]
    assert (network[6].weight[kept] != before[kept]).all()  # the others train
    for optimizer in optimizers:
        for param, state in optimizer.state.items():
            gone = [~mask[key] for key, own in network.named_parameters() if own is param and key in mask]
            assert not gone or not any(
                value[gone[0]].any() for key, value in state.items() if value.shape == param.shape and key != "step_size"
            )


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_without_hold_pruned_weights_come_back(name: str) -> None:
    network = small()
    with hold(network, mask_of(network)) as held:
        assert held.violations() == 0
    train(network, OPTIMIZERS[name](network), 1)
    assert held.violations() > 50


def test_lbfgs_with_a_closure() -> None:
    network = small()
    held = hold(network, mask_of(network))
    train(network, [torch.optim.LBFGS(network.parameters(), lr=0.1, max_iter=4)], 20)
    assert held.violations() == 0


def test_one_step_on_paper() -> None:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 4.0]]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.5)
    hold(network, {"weight": torch.tensor([[True, False]])}, optimizer)
    assert network.weight.tolist() == [[3, 0]]
    network(torch.tensor([[1.0, 7.0]])).sum().backward()  # the gradient is the input
    assert network.weight.grad is not None and network.weight.grad.tolist() == [[1, 0]]
    optimizer.step()
    assert network.weight.tolist() == [[2.5, 0]]
    assert optimizer.state[network.weight]["momentum_buffer"].tolist() == [[1, 0]]


def test_clipping_and_accumulation_see_masked_gradients() -> None:
    network = nn.Linear(2, 1, bias=False)
    hold(network, {"weight": torch.tensor([[True, False]])})
    for _ in range(3):
        network(torch.tensor([[1.0, 100.0]])).sum().backward()
    assert network.weight.grad is not None and network.weight.grad.tolist() == [[3, 0]]
    assert float(torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)) == 3.0


def test_a_nan_gradient_stops_at_a_masked_weight() -> None:
    network = nn.Linear(2, 1, bias=False)
    held = hold(network, {"weight": torch.tensor([[True, False]])})
    network(torch.tensor([[1.0, float("nan")]])).sum().backward()
    assert network.weight.grad is not None and network.weight.grad.tolist() == [[1, 0]]
    with torch.no_grad():
        network.weight.fill_(float("nan"))
    assert held.violations() == 1
    held.apply()
    assert held.violations() == 0 and network.weight[0, 1] == 0 and network.weight[0, 0].isnan()


def test_a_gradient_that_is_differentiated_again() -> None:
    network = nn.Linear(2, 1, bias=False)
    hold(network, {"weight": torch.tensor([[True, False]])})
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 0.0]]))
    with pytest.warns(UserWarning, match="create_graph=True"):  # torch's own
        network(torch.tensor([[1.0, 1.0]])).square().sum().backward(create_graph=True)
    grad = network.weight.grad
    assert grad is not None and grad.tolist() == [[6, 0]]
    network.weight.grad = None
    grad.sum().backward()
    assert network.weight.grad is not None and network.weight.grad.tolist() == [[2, 0]]  # d/dw of 2 (w + v)


def test_a_sparse_gradient_of_an_embedding() -> None:
    network = nn.Embedding(5, 3, sparse=True)
    mask = {"weight": torch.rand(5, 3, generator=seeding.generator(0, "mask")) < 0.5}
    held = hold(network, mask)
    optimizer = torch.optim.SparseAdam(list(network.parameters()))
    for row in range(50):
        optimizer.zero_grad()
        network(torch.tensor([row % 5, 1])).sum().backward()
        grad = network.weight.grad
        assert grad is not None and grad.is_sparse and not grad.to_dense()[~mask["weight"]].any()
        optimizer.step()
    assert held.violations() == 0


def test_biases_and_norms_are_held_as_well() -> None:
    network = small()
    mask = mask_of(network) | {name: torch.tensor([True, False, True, False]) for name in ("0.bias", "1.weight", "1.bias")}
    held = hold(network, mask)
    train(network, OPTIMIZERS["adamw"](network), 100)
    assert held.violations() == 0
    assert network[1].weight.count_nonzero() == 2 and network[1].bias.count_nonzero() == 2 and network[0].bias.count_nonzero() == 2


def test_with_an_example_dead_channels_hold_nothing_at_all() -> None:
    network = small()
    mask = mask_of(network, density=1.0)
    mask["0.weight"][1] = False  # nothing reaches channel 1; its bias and its norm could make it a constant
    example = next(iter(batches(1)))[0]
    held = hold(network, mask, example=example)
    assert {"0.bias", "1.weight", "1.bias", "3.weight"} <= held.names
    train(network, OPTIMIZERS["adamw"](network), 50)
    assert held.violations() == 0
    assert network[0].bias[1] == 0 and network[1].bias[1] == 0 and not network[3].weight[:, 1].any() and network[0].bias[0] != 0
    network.eval()
    small_one = compact(network, example, mask)
    assert small_one[0].weight.shape == (3, 1, 3, 3)  # type: ignore[index]
    assert torch.allclose(small_one(example), network(example), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_memory_layouts(dtype: torch.dtype) -> None:
    network = small().to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held = hold(network, mask_of(network))
    optimizer = OPTIMIZERS["adamw"](network)[0]
    for images, labels in batches(50):
        optimizer.zero_grad()
        functional.cross_entropy(network(images.to(dtype, memory_format=torch.channels_last)), labels).backward()
        optimizer.step()
    assert held.violations() == 0


def test_a_network_that_changes_its_precision_stays_held() -> None:
    network = small()
    held = hold(network, mask_of(network))
    network.double()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for images, labels in batches(3):
        functional.cross_entropy(network(images.double()), labels).backward()
        optimizer.step()
    assert held.violations() == 0


def test_a_frozen_weight_is_held_and_takes_part_when_it_is_freed() -> None:
    network = small()
    network[0].requires_grad_(False)
    held = hold(network, mask_of(network))
    optimizers = [torch.optim.AdamW(network.parameters(), lr=0.01)]
    train(network, optimizers, 2)
    network[0].requires_grad_(True)
    train(network, optimizers, 2)
    assert held.violations() == 0
    train(network, [], 1)
    assert network[0].weight.grad is not None and not network[0].weight.grad[~mask_of(network)["0.weight"]].any()


def test_tied_weights_are_held_under_either_name() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    network[1].weight = network[0].weight
    held = hold(network, {"1.weight": torch.eye(3)})
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.randn(2, 3, generator=seeding.generator(0, "x"))).sum().backward()
    optimizer.step()
    assert held.violations() == 0 and network[0].weight.count_nonzero() == 3


@pytest.mark.parametrize("kind", ["new", "old", "pruned"])
def test_reparametrized_weights_are_held_under_their_real_name(kind: str) -> None:
    network = small()
    if kind == "new":
        parametrizations.weight_norm(network[3])
    elif kind == "old":
        with pytest.warns(FutureWarning, match="weight_norm"):
            torch.nn.utils.weight_norm(network[3])
    else:
        torch_prune.l1_unstructured(network[3], "weight", amount=0.5)
    name = {"new": "3.parametrizations.weight.original1", "old": "3.weight_v", "pruned": "3.weight_orig"}[kind]
    mask = {name: mask_of(small())["3.weight"]}
    held = hold(network, mask)
    train(network, OPTIMIZERS["adamw"](network), 50)
    assert held.violations() == 0
    network(next(iter(batches(1)))[0])
    assert not network[3].weight[~mask[name]].any()


def test_loaded_weights_are_masked_at_once() -> None:
    network, dense = small(), small(5).state_dict()
    mask = mask_of(network)
    held = hold(network, mask)
    network.load_state_dict(dense)
    assert held.violations() == 0
    assert torch.equal(network[3].weight, dense["3.weight"] * mask["3.weight"])
    network[3].load_state_dict({"weight": torch.ones(6, 4, 3, 3), "bias": torch.ones(6)})  # a part of it
    nn.DataParallel(network).load_state_dict({f"module.{name}": value for name, value in dense.items()})
    assert held.violations() == 0
    network.load_state_dict(small(5).state_dict(), assign=True)  # other parameters
    assert held.violations() == 0
    train(network, OPTIMIZERS["adamw"](network), 5)
    assert held.violations() == 0


def test_a_training_that_goes_on_from_a_checkpoint_is_the_same() -> None:
    def start() -> tuple[nn.Module, Optimizer, Held]:
        network = small()
        optimizer = OPTIMIZERS["adamw"](network)[0]
        return network, optimizer, hold(network, mask_of(network), optimizer)

    whole, optimizer, _ = start()
    train(whole, [optimizer], 10, seed=3)
    saved = io.BytesIO(pickle.dumps((whole.state_dict(), optimizer.state_dict())))
    train(whole, [optimizer], 10, seed=4)
    again, optimizer, held = start()
    weights, state = pickle.load(saved)
    again.load_state_dict(weights)
    optimizer.load_state_dict(state)
    train(again, [optimizer], 10, seed=4)
    assert held.violations() == 0
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_momentum_from_before_is_masked() -> None:
    network = small()
    optimizer = OPTIMIZERS["sgd"](network)[0]
    train(network, [optimizer], 2)
    dense, mask = copy.deepcopy(optimizer.state_dict()), mask_of(network)
    with hold(network, mask, optimizer):
        buffer = optimizer.state[network[3].weight]["momentum_buffer"]
        assert not buffer[~mask["3.weight"]].any() and buffer.any()
        optimizer.load_state_dict(dense)  # and from a dense checkpoint, with the next step
        train(network, [optimizer], 1)
        buffer = optimizer.state[network[3].weight]["momentum_buffer"]
        assert not buffer[~mask["3.weight"]].any() and buffer.any()


def test_a_copy_has_the_zeros_and_is_not_held() -> None:
    network = small()
    held = hold(network, mask_of(network))
    pickled = io.BytesIO()
    torch.save(network, pickled)
    pickled.seek(0)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), torch.load(pickled, weights_only=False)):  # noqa: TID251
        assert twin[3].weight.count_nonzero() == network[3].weight.count_nonzero()
        twin.load_state_dict(small(5).state_dict())
        assert twin[3].weight.all()
        train(twin, OPTIMIZERS["adamw"](twin), 1)
        assert twin[3].weight.all()
        train(network, OPTIMIZERS["adamw"](network), 1)
        assert held.violations() == 0
        assert hold(twin, mask_of(twin)).violations() == 0


def test_release_lets_go_by_one_call() -> None:
    network = small()
    held = hold(network, mask_of(network))
    assert repr(held).startswith("Held(") and "released" not in repr(held)
    release(network)
    assert "released" in repr(held)
    held.release()
    release(network)
    network.load_state_dict(small().state_dict())
    assert network[3].weight.all()
    train(network, OPTIMIZERS["adamw"](network), 1)
    assert network[3].weight.grad is not None and held.violations() > 100
    assert not any(param._backward_hooks or param._post_accumulate_grad_hooks for param in network.parameters())  # type: ignore[attr-defined]
    assert not any(module._load_state_dict_post_hooks for module in network.modules())
    with hold(network, mask_of(network)) as again:
        assert again.violations() == 0


@pytest.mark.parametrize("handle", [True, False], ids=["handle-kept", "handle-dropped"])
def test_hold_keeps_no_network_alive(handle: bool) -> None:
    network = small()
    optimizer = OPTIMIZERS["adamw"](network)[0]
    held = hold(network, mask_of(network), optimizer)
    train(network, [optimizer], 2)
    gone, weight = weakref.ref(network), weakref.ref(network[3].weight)
    dropped = weakref.ref(held)
    if not handle:
        del held
    gc.collect()
    gc.disable()
    try:
        del network
        assert gone() is None  # at once, without the collector
        train(small(), OPTIMIZERS["adamw"](small()), 1)
        if handle:
            with pytest.raises(SpecError, match="^model: it was deleted"):
                held.violations()
        else:
            del optimizer
            assert dropped() is None and weight() is None
    finally:
        gc.enable()


def test_a_network_stays_held_when_nobody_keeps_the_handle() -> None:
    network = small()
    mask = mask_of(network)
    hold(network, mask)
    gc.collect()
    train(network, OPTIMIZERS["adamw"](network), 3)
    assert not any(param.detach()[~mask[name]].any() for name, param in prunable(network).items())


def test_a_replaced_parameter_does_not_go_unnoticed() -> None:
    network = small()
    held = hold(network, mask_of(network))
    network[6].weight = nn.Parameter(torch.ones(4, 6))
    with pytest.warns(MaskWarning, match=r"^6\.weight: replaced by another parameter since hold"):
        assert held.violations() == int((~mask_of(network)["6.weight"]).sum())
    with pytest.warns(MaskWarning, match=r"^6\.weight"):
        train(network, OPTIMIZERS["adamw"](network), 1)
    train(network, OPTIMIZERS["adamw"](network), 3)
    assert held.violations() == 0


def test_a_parameter_that_no_longer_fits_is_refused_at_the_next_step() -> None:
    network = small()
    held = hold(network, mask_of(network))
    network[6] = nn.Linear(6, 10)
    with pytest.raises(SpecError, match=r"^6\.weight: \(10, 6\) is not allowed; allowed: the shape that is held, \(4, 6\)"):
        train(network, OPTIMIZERS["adamw"](network), 1)
    network[6] = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(SpecError, match=r"^6\.weight: it is gone from the network since hold"):
        held.violations()
    held.release()
    train(network, OPTIMIZERS["adamw"](network), 1)


def test_two_networks_and_two_optimizers_do_not_disturb_each_other() -> None:
    one, two = small(), small(1)
    first, second = hold(one, mask_of(one)), hold(two, mask_of(two, seed=7))
    train(two, OPTIMIZERS["adamw"](two), 3)
    train(one, [torch.optim.SGD(one[0].parameters(), lr=0.1), torch.optim.AdamW(one[3:].parameters(), lr=0.1)], 3)
    assert first.violations() == 0 and second.violations() == 0
    first.release()
    train(two, OPTIMIZERS["adamw"](two), 3)
    assert second.violations() == 0


def test_a_full_mask_holds_nothing() -> None:
    network = small()
    held = hold(network, {name: torch.ones(param.shape) for name, param in prunable(network).items()}, OPTIMIZERS["sgd"](network)[0])
    assert held.names == set() and held.violations() == 0 and network[3].weight.all()
    assert not any(module._load_state_dict_post_hooks for module in network.modules())


def test_what_is_refused() -> None:
    network = small()
    weights = {name: param.detach().clone() for name, param in network.named_parameters()}
    mask = mask_of(network)
    with pytest.raises(SpecError, match=r"^mask: a mask of another network is not allowed; the network has no 0\.nothing$"):
        hold(network, {**mask, "0.nothing": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(SpecError, match=r"shapes differ: 6\.weight \(6, 4\) against \(4, 6\)$"):
        hold(network, {**mask, "6.weight": mask["6.weight"].T})
    with pytest.raises(SpecError, match=r"^mask: 6\.weight: 0\.5 is not allowed; allowed: 0 and 1$"):
        hold(network, {"6.weight": torch.full((4, 6), 0.5)})
    with pytest.raises(SpecError, match="^optimizer: 'AdamW' is not allowed; allowed: an optimizer that trains parameters of the mask$"):
        hold(network, mask, torch.optim.AdamW(small().parameters()))
    with pytest.raises(SpecError, match="^model: '0.weight' is not allowed; allowed: parameters with a shape; run one batch"):
        hold(nn.Sequential(nn.LazyLinear(4)), {"0.weight": torch.ones(4, 3)})
    held = hold(network, {"6.weight": mask["6.weight"]})
    with pytest.raises(
        SpecError, match=r"^mask: '6\.weight' is not allowed; allowed: a parameter that is not held already; autosparse\.release"
    ):
        hold(network, mask)
    other = hold(network, {"3.weight": mask["3.weight"]})  # two holds of different parameters are fine
    held.release()
    other.release()
    untouched = {name: param for name, param in network.named_parameters() if name not in ("6.weight", "3.weight")}
    assert all(torch.equal(param, weights[name]) for name, param in untouched.items())
    assert hold(network, mask).violations() == 0
