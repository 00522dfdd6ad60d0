"""A pickle that leaves a trace when it is loaded, in the files in which it could come."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def trapped(marker: Path) -> dict[str, bytes]:
    """The payload as a bare pickle, as torch.save writes it in both of its formats, as NumPy and as an archive hold it."""
    bare = pickle.dumps(Trap(marker), protocol=4)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in {"archive/data.pkl": bare, "archive/version": b"3\n", "archive/byteorder": b"little"}.items():
            file.writestr(name, data)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bare
    bundle = io.BytesIO()
    with tarfile.open(fileobj=bundle, mode="w:gz") as file:
        entry = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        entry.size = len(bare)
        file.addfile(entry, io.BytesIO(bare))
    text = bare.hex()
    inside = {"py/reduce": text, "__reduce__": [text], "!!python/object/apply:os.system": ["touch x"]}
    return {
        "pickle": bare,
        "torch zip": archive.getvalue(),
        "torch legacy": pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + bare,
        "numpy": array,
        "tar": bundle.getvalue(),
        "json": json.dumps(inside).encode(),
    }
