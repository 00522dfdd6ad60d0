"""Which parameters of a network are prunable: found by the kind of layer they belong to and by what the forward pass does with them.

Without a look at a forward pass (`choose`) it is the layers alone, in the order in which the network defines them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.networks.calls import Inputs, call

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of nn.MultiheadAttention, packed and separate
RECURRENT = ("weight_ih", "weight_hh", "weight_hr")  # what the matrices of RNN, LSTM, GRU and their cells begin with
PRODUCTS = {"linear", "matmul", "addmm", "mm", "bmm", "baddbmm", "einsum", "bilinear"} | {
    f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)
}
COMPUTED = "computed"  # the kind of a weight that is made of others in a way that zeros do not survive
CHOICE = "_autosparse_choice"  # the attribute of a network that holds what was chosen of it; deepcopy takes it along


class Choice(NamedTuple):
    """What of a network is prunable: names of parameters in the order in which a forward pass first uses them; `head` is the last.

    `left_out`: the other parameters of two and more dimensions, and why they stay dense.
    """

    names: tuple[str, ...]
    head: str | None
    left_out: dict[str, str]


def prunable(network: nn.Module, *, head: bool = True) -> dict[str, nn.Parameter]:
    """The prunable weights by the name of their parameter; biases and norms are never prunable.

    Weights of linear layers, convolutions and their transposes, the projections of attention, the matrices of RNN, LSTM and GRU. A
    reparametrized weight stands under the name of what it is made of (`parametrizations.weight.original`, `weight_orig`), where a
    zero makes a zero; under weight_norm it is not prunable, because a filter without weights has no norm. With a choice (`choose`): what
    was chosen, in the order of execution; else in the order of `named_parameters`.

    `head` False leaves out the classifier: the layer that is used last; without a choice the last linear layer, or the last
    convolution where there is no linear layer. Raises SpecError when nothing is left.
    """
    choice: Choice | None = network.__dict__.get(CHOICE)
    if choice is None:
        kinds = layers(network)
        names = [name for name, _ in network.named_parameters() if kinds.get(name, COMPUTED) not in ("embedding", COMPUTED)]
        last = _last(kinds)
    else:
        names, last = list(choice.names), choice.head
    everything = dict(network.named_parameters())
    found = {name: everything[name] for name in names if head or name != last}
    if not found:
        raise not_allowed("network", type(network).__name__, "a network with at least one prunable convolution or linear layer")
    return found


def layers(network: nn.Module) -> dict[str, str]:
    """Name of parameter -> kind, by the modules, in the order of their definition.

    Kinds are linear, convolution, transposed, attention, recurrent, embedding and computed.
    """
    first = {id(param): name for name, param in network.named_parameters()}  # tied weights count once
    found: dict[str, str] = {}
    for prefix, module in network.named_modules():
        for local, kind in _weights_of(module):
            made_of, zeros_stay = _made_of(module, local)
            if made_of is not None:
                name = first.get(id(dict(module.named_parameters())[made_of]), f"{prefix}.{made_of}".lstrip("."))
                found.setdefault(name, kind if zeros_stay else COMPUTED)
    return found


@torch.no_grad()
def choose(
    network: nn.Module,
    inputs: Inputs | None,
    *,
    ignore: str | nn.Module | Iterable[str | nn.Module] = (),
    embeddings: bool = False,
    frozen: bool = False,
    unused: bool = False,
) -> Choice:
    """Look at one forward pass in eval mode on `inputs`, and keep with the network which of its weights are prunable from now on.

    Without inputs everything counts as used, in the order of its definition.

    Left out, unless asked for: `embeddings`, weights that are `frozen` (without gradient), weights `unused` in evaluation, and what
    `ignore` names: layers, or patterns of names of modules or parameters (`*.head`, `blocks.0.*`). A parameter of a layer of no known
    kind is prunable where the pass multiplies by it. Raises SpecError for a pattern that names nothing and, unless it is ignored, for a
    weight that is computed in a way that zeros do not survive.
    """
    everything, kinds = dict(network.named_parameters()), layers(network)
    used = dict.fromkeys(everything, False) if inputs is None else _used(network, inputs)
    for name, product in used.items():
        if product and everything[name].dim() > 1:
            kinds.setdefault(name, "product")
    ignored = _ignored(network, ignore)
    order = [*used, *(name for name in everything if name not in used)]
    left_out, names = {}, []
    for name in (name for name in order if everything[name].dim() > 1):
        kind = kinds.get(name)
        if kind == COMPUTED and name not in ignored:
            raise not_allowed(
                f"network.{name}",
                "a weight under a parametrization that zeros do not survive",
                "one without it, e.g. after torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') or, for hooks, "
                "torch.nn.utils.remove_weight_norm(layer); or ignore the layer",
            )
        if why := _why_not(kind, name in ignored, everything[name].requires_grad or frozen, name in used or unused, embeddings):
            left_out[name] = why
        else:
            names.append(name)
    heads = [name for name in used if kinds.get(name) in ("linear", "convolution", "product")]
    choice = Choice(tuple(names), heads[-1] if heads else None, left_out)
    network.__dict__[CHOICE] = choice
    return choice


def _why_not(kind: str | None, ignored: bool, trains: bool, used: bool, embeddings: bool) -> str | None:
    if kind is None:
        return "no layer's weight"
    if ignored:
        return "ignored"
    if kind == "embedding" and not embeddings:
        return "embedding"
    if not trains:
        return "frozen"
    return None if used else "unused in evaluation"


def _weights_of(module: nn.Module) -> list[tuple[str, str]]:
    """The weights of one module, by the attribute that holds them, with their kind."""
    if isinstance(module, nn.Linear):
        return [("weight", "linear")]
    if isinstance(module, CONVOLUTIONS):
        return [("weight", "convolution")]
    if isinstance(module, TRANSPOSED):
        return [("weight", "transposed")]
    if isinstance(module, EMBEDDINGS):
        return [("weight", "embedding")]
    if isinstance(module, nn.MultiheadAttention):
        return [(name, "attention") for name in PROJECTIONS if getattr(module, name, None) is not None]
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        names = (name.removesuffix("_orig").removesuffix("_v") for name, _ in module.named_parameters(recurse=False))
        plain = [name for name in names if name.startswith(RECURRENT)]
        made = [name for name in getattr(module, "parametrizations", {}) if name.startswith(RECURRENT)]
        return [(name, "recurrent") for name in dict.fromkeys([*plain, *made])]
    return []


def _made_of(module: nn.Module, weight: str) -> tuple[str | None, bool]:
    """The parameter that a weight is made of, by its name within the module, and whether a zero in it makes one in the weight."""
    own = dict(module.named_parameters())
    if weight in own:
        return weight, True
    for name, zeros_stay in ((f"{weight}_orig", True), (f"{weight}_v", False)):  # torch.nn.utils.prune, weight_norm as a hook
        if name in own:
            return name, zeros_stay
    if parametrize.is_parametrized(module, weight):
        with _evaluating(module):  # spectral_norm iterates in training mode
            shape = getattr(module, weight).shape
            for name in own:
                if name.startswith(f"parametrizations.{weight}.original") and own[name].shape == shape:
                    return name, _keeps_zeros(module, weight, own[name])
    return None, False


@torch.no_grad()
def _keeps_zeros(module: nn.Module, weight: str, original: Tensor) -> bool:
    """Whether zeros in `original`, a whole filter of them among others, are zeros in the weight, and the rest is finite."""
    kept = original.clone()
    gone = torch.arange(original.numel(), device=original.device).reshape(original.shape) % 2 == 0
    gone[0] = True
    try:
        original.masked_fill_(gone, 0)
        made = getattr(module, weight)
        return bool(made.isfinite().all()) and not bool(made[gone].any())
    finally:
        original.copy_(kept)


def _last(kinds: dict[str, str]) -> str | None:
    for kind in ("linear", "convolution"):
        names = [name for name, its in kinds.items() if its == kind]
        if names:
            return names[-1]
    return None


def _ignored(network: nn.Module, ignore: str | nn.Module | Iterable[str | nn.Module]) -> set[str]:
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    modules = dict(network.named_modules(remove_duplicate=False))
    found: set[str] = set()
    for one in [ignore] if isinstance(ignore, str | nn.Module) else ignore:
        if isinstance(one, nn.Module):
            places = [name for name, module in modules.items() if module is one]
            if not places:
                raise not_allowed("ignore", type(one).__name__, "a layer of the network")
        else:
            places = [name for name in (*modules, *names) if name and fnmatchcase(name, one)]
            if not places:
                raise unknown_name("ignore", one, [name for name in modules if name])
        found.update(name for name in names for place in places if place == "" or name == place or name.startswith(f"{place}."))
    return found


def _used(network: nn.Module, inputs: Inputs) -> dict[str, bool]:
    """The parameters that a forward pass uses, in the order of their first use, and whether it multiplies by them."""
    watch = _Watch({id(param): name for name, param in network.named_parameters()})
    # With gradients, so that attention takes no short cut past its layers.
    with _evaluating(network), torch.enable_grad(), watch:
        call(network, inputs)
    return watch.used


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Watch(TorchFunctionMode):
    """Writes down which parameters the functions of torch are given."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.used: dict[str, bool] = {}

    def __torch_function__(self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name != "__get__":  # a look at its shape or dtype is no use
            for given in _flat((*args, *kwargs.values())):
                if (param := self.names.get(id(given))) is not None:
                    self.used[param] = self.used.get(param, False) or name in PRODUCTS
        return func(*args, **kwargs)


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value
