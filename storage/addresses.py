"""The one list of addresses that anybody may give: what is not on it is refused before it is opened."""

import re

from autosparse.models.errors import not_allowed

LOCAL, S3, REGISTRY = "local", "s3", "models"
SHAPES = {LOCAL: "a local folder", S3: "s3://bucket/prefix", REGISTRY: "models:/NAME@ALIAS or models:/NAME/VERSION"}
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def is_local(address: str) -> bool:
    """Whether it is a path of this machine, and no address with a scheme."""
    return SCHEME.match(address) is None


def address_kind(field: str, address: str | None, *kinds: str) -> str:
    """Which of `kinds` the address is. Raises SpecError, which names `field`, for every other one: file://, http:// and the like."""
    found = SCHEME.match(address or "")
    kind = found.group(1) if found else LOCAL
    if not address or "\0" in address or kind not in kinds or (kind == S3 and not address.startswith("s3://")):
        raise not_allowed(field, address, ", ".join(SHAPES[kind] for kind in kinds))
    return kind
