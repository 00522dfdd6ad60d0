"""Networks are built once per check, for the images they will see; what a run stores is counted from its arms."""

from dataclasses import replace
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.feature_shards import ROW_BYTES
from autosparse.storage.image_datasets import SIZES, load_images
from autosparse.tasks.checks import disk_room, networks, preflight

LENET = NetworkSpec(name="lenet300-100")
WEIGHTS = 64 * 300 + 300 * 100 + 100 * 10  # on digits
BYTES = 4 * (WEIGHTS + 300 + 100 + 10)


def spec(**fanout: Any) -> ExperimentSpec:
    base = smoke()
    return replace(base, fanout=replace(base.fanout, dense=True, ticket=True, **fanout))


def said(seen: networks.Seen) -> tuple[Any, ...]:
    return seen.image_shape, seen.num_classes, seen.known


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is built in a test: label and images, and nothing is remembered from the tests before."""
    found: list[tuple[str, Any]] = []
    real = networks.build

    def build(network: NetworkSpec, seen: networks.Seen) -> Any:
        found.append((network.label, said(seen)))
        return real(network, seen)

    for module in (preflight, disk_room):
        monkeypatch.setattr(module, "build", build)
    preflight.check_spec.cache_clear()
    disk_room.bytes_of.cache_clear()
    disk_room.sizes_of.cache_clear()
    return found


def test_sizes_are_those_of_the_digits_and_a_guess_where_nobody_knows() -> None:
    arrays = load_images(DataSpec(name="digits", train_limit=2, test_limit=2), None)
    assert SIZES["digits"] == (arrays.image_shape, len(arrays.classes)) == ((1, 8, 8), 10)
    assert said(networks.seen_of(DataSpec(name="cifar100"))) == ((3, 32, 32), 100, True)
    for name in ("mnist", "fashion_mnist"):
        assert said(networks.seen_of(DataSpec(name=name))) == ((1, 28, 28), 10, True)
    assert said(networks.seen_of(DataSpec(name="parquet", path="/somewhere"))) == ((3, 32, 32), 10, False)
    assert said(networks.seen_of(DataSpec(name="parquet", path="/somewhere", size=224))) == ((3, 224, 224), 10, False)
    assert said(networks.seen_of(DataSpec(name="mnist", size=8))) == ((1, 8, 8), 10, True)


def test_each_network_is_built_once_for_each_size_of_images(built: list[tuple[str, Any]]) -> None:
    targets = (TargetSpec(network=LENET), TargetSpec(network=LENET, data=DataSpec(name="mnist", path="/mnist")))
    found = spec(targets=targets, methods=("snip", "grda"))
    wanted = [(LENET.label, ((1, 8, 8), 10, True)), (LENET.label, ((1, 28, 28), 10, True))]
    preflight.check_spec(found)
    assert built == wanted
    preflight.check_spec(found)
    preflight.check_spec(spec(targets=targets, methods=("snip", "grda")))  # an equal spec, as the flow gets it
    assert built == wanted
    disk_room.bytes_of(found)
    assert built == [*wanted, *wanted]


def test_a_spec_that_was_refused_is_refused_again(built: list[tuple[str, Any]]) -> None:
    bad = spec(targets=(TargetSpec(network=NetworkSpec(name="lenet300-100", width=4)),))
    for _ in range(2):
        with pytest.raises(SpecError, match=r"^fanout\.targets\.0\.network\.width: 4 is not allowed"):
            preflight.check_spec(bad)


def test_the_bytes_of_a_run_by_hand(built: list[tuple[str, Any]]) -> None:
    found = spec(methods=("snip", "grda()"), densities=(0.5, 0.1), seeds=(10, 11), controls=("shuffle",))
    rounds = 2 * BYTES + WEIGHTS * ROW_BYTES  # of one seed
    arms = 2 + 2 + 2 * (4 + 1)  # dense, tickets, for each seed snip at two densities with a control and one level of grda
    assert disk_room.bytes_of(found) == rounds + arms * BYTES + 2 * WEIGHTS * 4  # scores of snip
