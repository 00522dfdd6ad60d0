"""Other people's networks on other people's data through the whole DAG: a timm ViT on pictures of many sizes, a BERT that reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.command_line import cli

pytestmark = [pytest.mark.services, pytest.mark.slow]


def small(network: str, keywords: dict[str, object]) -> list[str]:
    """The smallest recipe with a network as its source and target."""
    spec = json.dumps({"name": network, "keywords": keywords})
    return [
        *("run", "--recipe", "smoke", "--name", "foreign", "--set", f"irp.networks=[{spec}]"),
        *("--set", f'fanout.targets=[{{"network": {spec}}}]', "--set", "fanout.methods=[snip,synflow,scorer]"),
        *("--set", "irp.train.batch_size=16", "--set", "fanout.train.batch_size=16", "--set", "scoring.batch_size=16"),
        *("--set", "data.train_limit=null", "--set", "data.test_limit=null"),
    ]


def arms(home: Path) -> dict[str, dict[str, float]]:
    """Method -> its arm, all of them trained to their end."""
    found = json.loads(cli(home, "show", "foreign", "--json").stdout)["arms"]
    assert {arm["status"] for arm in found} == {"ok"}
    return {arm["method"]: arm for arm in found}


def test_a_timm_vit_on_a_folder_of_pictures_of_many_sizes(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    for number in range(160):
        place = tmp_path / "pictures" / ("train" if number < 128 else "test") / ("cat", "dog")[number % 2] / ("", "more")[number % 3 == 0]
        place.mkdir(parents=True, exist_ok=True)
        grey = stream.integers(0, 128, (18 + number % 9, 20 + number % 7, 3)) + 127 * (number % 2)  # dogs are bright
        Image.fromarray(grey.astype(np.uint8)).save(place / f"{number}.{('png', 'jpg')[number % 2]}")
    data = ("--set", "data.name=image_folder", "--set", f"data.path={tmp_path / 'pictures'}")
    network = small("timm:vit_tiny_patch16_224", {"depth": 2, "patch_size": 4, "embed_dim": 48, "num_heads": 3})
    refused = cli(tmp_path / "home", *network, *data)
    assert refused.returncode == 2 and "data.size" in refused.stderr and len(refused.stderr.splitlines()) == 1
    done = cli(tmp_path / "home", *network, *data, "--set", "data.size=16")
    assert done.returncode == 0, done.stderr[-3000:]
    assert arms(tmp_path / "home")["dense"]["accuracy"] > 0.6


def test_a_hugging_face_classifier_of_sentences(tmp_path: Path) -> None:
    keywords = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32}
    network = small("hf:bert/sequence-classification", keywords)
    done = cli(tmp_path, *network, "--set", "data.name=tests.plugins.sentences:Sentences", "--set", "fanout.train.lr=0.05")
    assert done.returncode == 0, done.stderr[-3000:]
    found = arms(tmp_path)
    assert set(found) == {"dense", "snip", "synflow", "scorer"} and all(0 <= arm["accuracy"] <= 1 for arm in found.values())
