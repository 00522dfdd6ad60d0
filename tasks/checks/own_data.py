"""What a task of one's own excludes: fields, controls and methods that know images and their labels alone."""

from autosparse.models.errors import not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import to_plain
from autosparse.models.specs.run_specs import DataSpec

ITS_OWN = ("name", "path")  # fields of a DataSpec that a task has; all others are of images
SPOILERS = ("random_labels", "random_pixels")


def check_own_data(spec: ExperimentSpec, field: str, data: DataSpec) -> None:
    """Raise SpecError for what cannot be asked of a task of one's own."""
    usual = to_plain(DataSpec(name=data.name))
    for name, value in to_plain(data).items():
        if name not in ITS_OWN and value != usual[name]:
            raise not_allowed(f"{field}.{name}", value, f"{usual[name]!r} for a task of your own, whose data sets decide that")
    for control in spec.fanout.controls:
        if control in SPOILERS:
            raise not_allowed("fanout.controls", control, f"controls other than {' and '.join(SPOILERS)} for a task of your own")
    if spec.valley.pairs:
        raise not_allowed("valley.pairs", [list(pair) for pair in spec.valley.pairs], "none for a task of your own")
