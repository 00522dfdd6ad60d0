"""Held in other people's trainers: Hugging Face, timm, Lightning's way of stepping, mixed precision, compiled, averaged, on two ranks."""

import copy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from autosparse.library.holding import Held, hold
from autosparse.library.mask import Mask
from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.torchvision_guard import import_torchvision

HERE = Path(__file__).parent
STEPS = 1000


@pytest.fixture(scope="module")
def timm() -> Any:
    """timm, which imports torchvision."""
    import_torchvision()
    import timm.models
    import timm.optim
    import timm.utils

    return timm


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hugging Face without the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import_torchvision()
    import transformers

    return transformers


def small() -> nn.Sequential:
    with seeding.scoped(0, "test"):
        return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4))


def mask_of(network: nn.Module, density: float = 0.2) -> Mask:
    stream = seeding.generator(1, "mask")
    return Mask.of({name: torch.rand(param.shape, generator=stream) < density for name, param in prunable(network).items()})


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    stream = seeding.generator(2, "batches")
    few = [(torch.randn(4, 1, 8, 8, generator=stream), torch.randint(0, 4, (4,), generator=stream)) for _ in range(20)]
    return [few[index % 20] for index in range(count)]


class Sentences(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Sixteen rows of eight tokens, two labels."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": torch.arange(8) + index, "labels": torch.tensor(index % 2)}


def bert(transformers: Any) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=8
    )
    with seeding.scoped(0, "test"):
        return transformers.BertForSequenceClassification(config)


def hf_trainer(transformers: Any, model: nn.Module, folder: Path, steps: int, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        weight_decay=0.1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
        **{"save_strategy": "no", **options},
    )
    return transformers.Trainer(model=model, args=arguments, train_dataset=Sentences())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optim": "adafactor", "gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
        {"bf16": True, "optim": "adamw_torch_fused", "lr_scheduler_type": "cosine"},
    ],
    ids=["adamw", "adafactor-accumulated", "bf16-fused"],
)
def test_hugging_face_trainer(transformers: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    model = bert(transformers)
    keys, before = list(model.state_dict()), copy.deepcopy(model.state_dict())
    held = hold(model, mask_of(model))
    steps = 100 if options else STEPS
    hf_trainer(transformers, model, tmp_path, steps, **options).train()  # makes its optimizer now, wrapped by accelerate
    assert held.violations() == 0 and list(model.state_dict()) == keys
    assert not torch.equal(model.get_parameter("classifier.weight"), before["classifier.weight"])


def test_hugging_face_trainer_goes_on_from_its_checkpoint(transformers: Any, tmp_path: Path) -> None:
    whole = bert(transformers)
    hold(whole, mask_of(whole))
    hf_trainer(transformers, whole, tmp_path, 8, save_strategy="steps", save_steps=4).train()
    again = bert(transformers)
    held = hold(again, mask_of(again))
    hf_trainer(transformers, again, tmp_path, 8).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert held.violations() == 0
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_accelerate_with_its_wrapped_optimizer(transformers: Any) -> None:
    from accelerate import Accelerator

    network, accelerator = small(), Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(network, torch.optim.AdamW(network.parameters(), lr=0.01))
    held = hold(model, mask_of(network), optimizer)
    for images, labels in batches(100):
        accelerator.backward(functional.cross_entropy(model(images), labels))
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert held.violations() == 0


@pytest.mark.parametrize("name", ["sgd", "lamb", "lion", "adan", "muon", "lookahead_adamw", "adopt", "adafactorbv", "madgrad"])
def test_the_loop_of_timm(timm: Any, name: str) -> None:
    """As its train.py: optimizer by name, NativeScaler with clipping and accumulation, EMA after each update."""
    with seeding.scoped(0, "test"):
        network = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, num_classes=4, embed_dim=12, depth=1)
    optimizer = timm.optim.create_optimizer_v2(network, opt=name, lr=1e-3, weight_decay=0.05)
    held, keys = hold(network, mask_of(network)), list(network.state_dict())
    average = timm.utils.ModelEmaV3(network, decay=0.9)
    scaler = timm.utils.NativeScaler(device="cpu")
    for index, (images, labels) in enumerate(batches(STEPS if name == "lookahead_adamw" else 100)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(network(images), labels) / 2
        scaler(loss, optimizer, clip_grad=1.0, parameters=network.parameters(), need_update=index % 2 == 1)
        if index % 2 == 1:
            optimizer.zero_grad()
            average.update(network, step=index)
    assert held.violations() == 0 and list(network.state_dict()) == keys
    with hold(average.module, mask_of(network)) as averaged:
        assert averaged.violations() == 0


def test_the_way_lightning_steps() -> None:
    """Its optimizer calls `step(closure=...)`; the closure zeroes gradients, goes backward and clips."""
    network = small()
    held = hold(network, mask_of(network))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

    for images, labels in batches(STEPS):

        def closure(images: Tensor = images, labels: Tensor = labels) -> Tensor:
            loss = functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_value_(network.parameters(), 0.5)
            return loss.detach()

        optimizer.step(closure=closure)
    assert held.violations() == 0


def test_grad_scaler_with_an_overflow() -> None:
    network = small()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    held = hold(network, mask_of(network), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10)
    scales = set()
    for images, labels in batches(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = functional.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scales.add(scaler.get_scale())
    assert len(scales) > 1  # steps were skipped
    assert held.violations() == 0 and all(param.isfinite().all() for param in network.parameters())


def test_averaged_copies() -> None:
    network = small()
    early = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    held = hold(network, mask_of(network))
    late = AveragedModel(network)
    of_early = hold(early.module, mask_of(network))  # a copy made before is held by itself
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for images, labels in batches(STEPS):
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        early.update_parameters(network)
        late.update_parameters(network)
    assert held.violations() == 0 and of_early.violations() == 0
    assert all(not late.module.get_parameter(name).detach()[~keep].any() for name, keep in mask_of(network).items())


@pytest.mark.parametrize("order", ["hold-first", "compile-first", "compiled-while-running"])
def test_compiled(order: str) -> None:
    network = small()
    if order == "hold-first":
        held, model = hold(network, mask_of(network)), torch.compile(network, backend="aot_eager")
    else:
        model = torch.compile(network, backend="aot_eager")
        if order == "compiled-while-running":
            functional.cross_entropy(model(batches(1)[0][0]), batches(1)[0][1]).backward()
        held = hold(model, mask_of(network))
    assert isinstance(held, Held)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    for images, labels in batches(STEPS // 4):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        assert network[0].weight.grad is not None and not network[0].weight.grad[~mask_of(network)["0.weight"]].any()
        optimizer.step()
    assert held.violations() == 0


def test_two_ranks(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "two_ranks.py"), str(tmp_path / "meeting")]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        for rank in range(2)
    ]
    for rank in ranks:
        assert rank.communicate(timeout=120)[0] == "violations 0 equal True\n" * 2


def test_a_part_of_a_parameter_is_refused() -> None:
    network = small()
    network[4].weight.device_mesh = SimpleNamespace()  # type: ignore[assignment]  # what a sharded parameter has
    with pytest.raises(SpecError, match=r"^4\.weight: 'Parameter' is not allowed; allowed: a parameter of real numbers that lies whole"):
        hold(network, mask_of(network))
    assert network[0].weight.all()
