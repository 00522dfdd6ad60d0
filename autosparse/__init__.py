"""autosparse: masks for networks before they are trained, and the pipeline that learns to choose them.

    mask = autosparse.prune(model, batches, method="synflow", density=0.05)
    autosparse.hold(model, mask, optimizer)

The names below are imported when they are first used, so that `import autosparse` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.library.compaction import compact as compact
    from autosparse.library.compaction import compaction_table as compaction_table
    from autosparse.library.export import export as export
    from autosparse.library.holding import Held as Held
    from autosparse.library.holding import hold as hold
    from autosparse.library.holding import release as release
    from autosparse.library.mask import Mask as Mask
    from autosparse.library.mask_checks import MaskWarning as MaskWarning
    from autosparse.library.mask_file import initial_weights as initial_weights
    from autosparse.library.pruning import prune as prune
    from autosparse.library.scorer import scorer as scorer
    from autosparse.models.errors import AutosparseError as AutosparseError
    from autosparse.models.training.objective import Metric as Metric

__version__ = "0.2.0"

PLACES = {
    "AutosparseError": "autosparse.models.errors",
    "compact": "autosparse.library.compaction",
    "compaction_table": "autosparse.library.compaction",
    "export": "autosparse.library.export",
    "Held": "autosparse.library.holding",
    "Mask": "autosparse.library.mask",
    "MaskWarning": "autosparse.library.mask_checks",
    "Metric": "autosparse.models.training.objective",
    "hold": "autosparse.library.holding",
    "initial_weights": "autosparse.library.mask_file",
    "prune": "autosparse.library.pruning",
    "release": "autosparse.library.holding",
    "scorer": "autosparse.library.scorer",
}

__all__ = sorted(PLACES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'autosparse' has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
