"""The networks of Hugging Face transformers from their configuration, untrained: `hf:TYPE` or `hf:TYPE/TASK`."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.networks.trial import guarded
from autosparse.models.networks.zoo_guard import check_ours, import_zoo

AUTO = "AutoModelFor"
TASKS = ("image-classification", "sequence-classification", "causal-lm")  # without a task the first of these that the type has
OURS = ("num_labels", "image_size", "num_channels")


def hugging_face_builder(name: str) -> Callable[..., nn.Module]:
    """The builder of `hf:NAME`. It takes the fields of the type's configuration as keywords, as its signature says.

    Nothing is downloaded. `num_classes` becomes `num_labels`, `image_shape` becomes `num_channels` and, where the configuration has one,
    `image_size`. Raises SpecError for an unknown type, and for a task that the type has no network for.
    """
    asked = f"hf:{name}"
    transformers = import_zoo("transformers", "hf", asked)
    kind, _, task = name.partition("/")
    kinds = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if kind not in kinds:
        raise unknown_name("network.name", asked, [f"hf:{known}" for known in kinds])
    usual = guarded(f"network.name: {asked}", lambda: transformers.AutoConfig.for_model(kind))
    auto = _auto_class(transformers, kind, task, usual)
    fields = {field for field in (*usual.to_dict(), *usual.attribute_map) if not field.startswith("_")} - {"model_type"}

    def build(*, image_shape: tuple[int, int, int] | None = None, num_classes: int | None = None, **keywords: Any) -> nn.Module:
        check_ours(keywords, OURS)
        given: dict[str, Any] = {} if num_classes is None else {"num_labels": num_classes}
        if image_shape:
            channels, height, width = image_shape
            sizes = {"num_channels": channels, "image_size": height if height == width else (height, width)}
            given |= {field: value for field, value in sizes.items() if hasattr(usual, field)}
        return auto.from_config(transformers.AutoConfig.for_model(kind, **given, **keywords))

    names = sorted({"image_shape", "num_classes", *fields, *OURS})
    by_name = [inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None) for field in names]
    build.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    return build


def _auto_class(transformers: Any, kind: str, task: str, config: Any) -> Any:
    known = {_spelled(name): getattr(transformers, name) for name in dir(transformers) if name.startswith(AUTO)}
    has = [spelled for spelled, auto in known.items() if type(config) in auto._model_mapping]
    found = task or next((usual for usual in TASKS if usual in has), None)
    if found in has:
        return known[found]
    if found in known or found is None:
        raise not_allowed("network.name", f"hf:{kind}/{task}".rstrip("/"), " or ".join(f"hf:{kind}/{one}" for one in has) or "another type")
    raise unknown_name("network.name", f"hf:{kind}/{task}", [f"hf:{kind}/{one}" for one in has])


def _spelled(name: str) -> str:
    """`image-classification` of `AutoModelForImageClassification`."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name.removeprefix(AUTO)).lower()
