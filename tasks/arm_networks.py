"""The trained network of one arm of a run, out of the store: for `autosparse inspect`, `compact` and `export`."""

from torch import nn

from autosparse.library.compaction import compact_to_train
from autosparse.library.mask import Mask
from autosparse.models.arms.names import find_arm
from autosparse.models.arms.plan import target_of
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.narrow import narrow_network
from autosparse.models.errors import DataError
from autosparse.models.masks.prunable import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.networks.calls import Inputs
from autosparse.models.specs.grain import narrow_of
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.damage import damaged
from autosparse.storage.mask_files import load_mask
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import step_of
from autosparse.tasks.results.comparisons import compacted_by, missing
from autosparse.tasks.results.ledger import data_of
from autosparse.tasks.results.record import load_record
from autosparse.tasks.worker.problem import fit_of


def trained_network(store: Store, run: str, text: str) -> tuple[nn.Module, Mask, Inputs]:
    """The network of the arm `text` with its trained weights, the mask of those that are not zero, and one image of noise or the example
    of its task.

    An arm that was trained as a smaller network (`fanout.compact`) is that network.

    Raises SpecError for a name that is no arm, DataError where the arm has no trained weights or they do not fit.
    """
    record = load_record(store, run)
    arm = find_arm(record.spec, text)
    if why := missing(store, RunPaths(run), arm):
        raise DataError(f"arm: {arm.text} of {run} cannot be read: {why}")
    target = target_of(record.spec, arm.target)
    data = data_of(record, target.data, record.spec.fanout.targets.index(target))
    if data is None:
        raise DataError(f"arm: {arm.text} of {run} cannot be read: the report of its data set is missing")
    fit, narrow = fit_of(record.spec.data_of(target), data), narrow_of(arm.method)
    if narrow and arm.density:
        network = narrow_network(target.network, arm.density, narrow.cost, seed=arm.seed, **fit)
    else:
        network = build_network(target.network, seed=arm.seed, **fit)
    example, key = example_of(fit["image_shape"]), paths.weights(step_of(RunPaths(run), arm))
    if mask_key := compacted_by(store, RunPaths(run), arm):
        network, _ = compact_to_train(network, example, load_mask(store.read(mask_key), source=store.uri(mask_key)))
    try:
        network.load_state_dict(load_tensors(store.read(key), source=store.uri(key)))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise damaged(store.uri(key), f"not the weights of {target.network.name} ({reason})") from None
    kept = {name: weight.detach() != 0 for name, weight in prunable(network, head=target.network.prune_head).items()}
    mask = Mask.of(kept, network, method=arm.name, density=arm.density, seed=arm.seed)
    return network, mask, example
