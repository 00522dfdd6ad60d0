"""Ids by hand: 0 is fixed, the next are made in order."""

import torch
from torch import tensor

from autosparse.models.channels.ledger import Ledger


def test_ids_that_are_tied_over_others_are_one_class() -> None:
    ledger = Ledger()
    ids = ledger.new(torch.ones(6, dtype=torch.bool))
    assert ids.tolist() == [1, 2, 3, 4, 5, 6]
    ledger.tie(ids[[5, 3]], ids[[3, 1]])  # 6 with 4, 4 with 2
    ledger.tie(ids[2], ids[4])
    assert ledger.classes().tolist() == [0, 1, 2, 3, 2, 3, 2]


def test_a_layer_reaches_what_one_of_its_inputs_reaches() -> None:
    ledger = Ledger()
    inputs = ledger.new(tensor([True, False]))
    outputs = ledger.mix(inputs, tensor([[True, False], [False, True], [False, False]]))
    assert ledger.reached[outputs].tolist() == [True, False, False]


def test_needed_is_what_lies_on_a_path_to_an_end() -> None:
    ledger = Ledger()
    inputs = ledger.new(tensor([True, True, True]))
    middle = ledger.mix(inputs, tensor([[True, False, False], [False, True, False], [False, False, False]]))
    outputs = ledger.mix(middle, tensor([[True, False, True]]))
    ledger.end(outputs)
    needed = ledger.needed()
    assert needed[middle].tolist() == [True, False, True]  # the second is read by nobody
    assert needed[inputs].tolist() == [True, False, False]  # the third feeds what nothing reaches
    assert ledger.classes()[outputs].tolist() == [0]


def test_a_tensor_that_is_used_twice_ties_both_uses() -> None:
    ledger = Ledger()
    one, other = ledger.new(torch.ones(2, dtype=torch.bool)), ledger.new(torch.ones(2, dtype=torch.bool))
    ledger.use("layer.weight", 0, one)
    ledger.use("layer.weight", 0, other)
    assert ledger.classes().tolist() == [0, 1, 2, 1, 2]
