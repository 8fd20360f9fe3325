"""A text's stream: where it lies, and what of it a device is given."""

from __future__ import annotations

import torch

from pat.models.held_stream import HeldStream


def test_batches_lie_on_the_cpu_and_are_handed_out_on_the_device() -> None:
    given = [torch.randn(2, 3, 4).bfloat16() for _ in range(2)]
    held = HeldStream(torch.device("meta"))  # which holds nothing itself
    for batch, stream_BTD in enumerate(given):
        held.put(batch, stream_BTD)
    assert [stream_BTD.device.type for stream_BTD in held] == ["meta", "meta"]
    held.device = torch.device("cpu")
    assert all(torch.equal(there, put) for there, put in zip(held, given, strict=True))


def test_a_batch_takes_its_own_place_and_nothing_is_copied_for_a_cpu() -> None:
    held, first = HeldStream(torch.device("cpu")), torch.zeros(2, 3, 4)
    held.put(0, first)
    first += 5.0  # what is held is no longer the caller's
    there = held[0]
    assert not there.any()
    held.put(0, torch.ones(2, 3, 4))
    assert len(held) == 1 and held[0].data_ptr() == there.data_ptr() and there.all()
