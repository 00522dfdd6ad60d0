"""A BERT of Hugging Face, pruned before it is trained and held in its Trainer. Needs transformers and accelerate; downloads nothing.

The task is made up: does the sentence hold the word 7?
"""

from tempfile import TemporaryDirectory

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, default_data_collator, set_seed

import autosparse


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """Sentences of twelve words; in half of them one word is replaced by 7."""

    def __init__(self, count: int, seed: int) -> None:
        stream = torch.Generator().manual_seed(seed)
        self.words = torch.randint(8, 32, (count, 12), generator=stream)
        self.labels = torch.randint(0, 2, (count,), generator=stream)
        self.words[torch.arange(count), torch.randint(0, 12, (count,), generator=stream)] *= 1 - self.labels
        self.words[self.words == 0] = 7

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.words[index], "labels": self.labels[index]}


set_seed(0)
config = BertConfig(
    vocab_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16
)
model = BertForSequenceClassification(config)
data = Sentences(2048, seed=0)

batches = [default_data_collator([data[index] for index in range(start, start + 64)]) for start in range(0, 256, 64)]
mask = autosparse.prune(model, batches, method="snip", density=0.3, min_per_layer=32)
print(mask.summary())

held = autosparse.hold(model, mask)  # the Trainer makes its optimizer later; it is held all the same
with TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        num_train_epochs=4,
        per_device_train_batch_size=64,
        learning_rate=5e-3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    found = trainer.predict(Sentences(512, seed=1))
right = (torch.tensor(found.predictions).argmax(1) == torch.tensor(found.label_ids)).float().mean()
print(f"accuracy {right:.3f} on 512 sentences, {held.violations()} pruned weights came back")
