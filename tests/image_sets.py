"""Small image data sets as people have them, for tests."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage.image_datasets import ImageArrays, load_images

RED, DARK = [[[250, 0, 0], [0, 0, 0]]], [[[9, 9, 9], [1, 2, 3]]]  # 1 row of 2 pixels
GREY = [[7, 8], [9, 10]]


def load(name: str, path: Path | str | None, cache: Path | None = None, **fields: Any) -> ImageArrays:
    return load_images(DataSpec(name=name, path=None if path is None else str(path), **fields), cache)


def encoded(pixels: Any, format: str = "PNG", mode: str | None = None, **more: Any) -> bytes:
    """uint8 pixels (H, W) or (H, W, channels) as an image file; `more` goes to Pillow's `save`."""
    file = io.BytesIO()
    image = Image.fromarray(np.array(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(file, format, **more)
    return file.getvalue()


def write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Any,
    *,
    column: str = "img",
    label: str = "label",
    names: list[str] | None = None,
    group: int | None = None,
    **more: Any,
) -> None:
    """Columns as the Hub has them; labels are int64 unless they are an Arrow array; `more` are further columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(images)]
    given = labels if isinstance(labels, pa.Array) else pa.array(labels, pa.int64())
    table = pa.table({column: pa.array(rows, image), label: given, **more})
    if names:
        features = {"info": {"features": {column: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=group)


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root
