from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medphantom.core.errors import InputError
from medphantom.learning.batches import StreamBatches, TensorBatches, epoch_order, stream_rows

SMALL = settings(max_examples=40, deadline=None)


@SMALL
@given(total=st.integers(1, 30), epoch=st.integers(0, 5), seed=st.integers(0, 2**40))
def test_an_epoch_visits_every_row_once(total: int, epoch: int, seed: int) -> None:
    assert sorted(epoch_order(total, epoch, seed).tolist()) == list(range(total))


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    orders = {tuple(epoch_order(50, epoch, seed).tolist()) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9


@SMALL
@given(total=st.integers(1, 12), size=st.integers(1, 40), batches=st.integers(1, 6))
def test_batches_are_epochs_laid_end_to_end_even_when_a_batch_exceeds_the_data(
    total: int, size: int, batches: int
) -> None:
    stream = torch.cat([epoch_order(total, epoch, 7) for epoch in range(batches * size // total + 1)])
    seen = torch.cat([stream_rows(total, index * size, size, 7) for index in range(batches)])
    assert torch.equal(seen, stream[: batches * size])


@SMALL
@given(index=st.integers(0, 20), parts=st.sampled_from([1, 2, 3, 4]), per_part=st.integers(1, 5))
def test_the_parts_of_a_batch_make_up_the_batch(index: int, parts: int, per_part: int) -> None:
    """So accumulation and processes change nothing about what an optimiser step sees."""
    batches = TensorBatches({"x": torch.arange(10)})
    whole = batches.batch(index, parts * per_part, 0)["x"]
    split = [batches.batch(index * parts + part, per_part, 0)["x"] for part in range(parts)]
    assert torch.equal(torch.cat(split), whole)


def test_tensors_stay_aligned() -> None:
    batch = TensorBatches({"x": torch.arange(9), "square": torch.arange(9) ** 2}).batch(3, 4, 1)
    assert torch.equal(batch["x"] ** 2, batch["square"])


def test_no_data_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="nothing to learn from: the training data has no rows"):
        StreamBatches(0, lambda rows: {"x": rows})
    with pytest.raises(InputError, match="no rows"):
        TensorBatches({"x": torch.zeros(0, 3)})
    with pytest.raises(InputError, match="differ in their number of rows"):
        TensorBatches({"x": torch.zeros(2), "y": torch.zeros(3)})
