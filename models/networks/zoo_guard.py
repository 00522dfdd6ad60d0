"""The only import of packages that know networks by name; each is an extra, and there only when somebody asks for one of its networks."""

from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from autosparse.models.errors import not_allowed
from autosparse.models.networks.torchvision_guard import import_torchvision

DOWNLOADS = ("weights", "pretrained")


def import_zoo(package: str, extra: str, name: str) -> Any:
    """The package behind the network `name`. Raises SpecError, which names the extra, where it is not installed.

    timm and transformers import torchvision, which has to come first: beside some builds of torch only our guard can import it.
    """
    try:
        if find_spec("torchvision"):
            import_torchvision()
        return import_module(package)
    except ImportError as error:
        allowed = f"with the package {package}, pip install 'autosparse[{extra}]' ({error})"
        raise not_allowed("network.name", name, allowed) from None


def check_ours(keywords: Mapping[str, Any], ours: Collection[str]) -> None:
    """Raise SpecError for a keyword that is given by ourselves: from the data, or because nothing is downloaded."""
    for keyword in keywords:
        if keyword in ours:
            why = "nothing is downloaded" if keyword in DOWNLOADS else "it is given by the data"
            raise not_allowed(f"network.keywords.{keyword}", keywords[keyword], f"none: {why}")
