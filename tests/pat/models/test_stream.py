"""The stream on its way through a model, block by block, against the hidden states that the stock model gives of every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pat.families.known import family_of
from pat.models.stream import enter, written_by
from tests.kit.tiny_models import CONFIGS, random_tokens, tiny_model

PADDED = torch.tensor([[1] * 12, [1] * 9 + [0] * 3])


@pytest.mark.parametrize("name", CONFIGS)
def test_batches_with_one_mask_are_walked_by_what_one_forward_pass_tells_of_it(name: str) -> None:
    model: Any = tiny_model(name)
    family, runs = family_of(model.config), list[int]()
    masks = [torch.ones(2, 12, dtype=torch.long), torch.ones(2, 12, dtype=torch.long), PADDED, torch.ones(1, 12, dtype=torch.long)]
    batches = [{"input_ids": random_tokens(len(mask), 12, seed=seed), "attention_mask": mask} for seed, mask in enumerate(masks)]
    layers = model.get_submodule(family.layers)
    hook = layers[-1].register_forward_hook(lambda *_given: runs.append(1))
    streams = enter(model, iter(batches))
    hook.remove()
    assert len(runs) == 3, "two of the masks are the same"
    with torch.no_grad():
        for stream, batch in zip(streams, batches, strict=True):
            expected = model.base_model(**batch, output_hidden_states=True).hidden_states
            for index, layer in enumerate(layers):
                assert torch.allclose(stream.real(), expected[index][batch["attention_mask"].bool()], atol=1e-5)
                for place, block in enumerate(family.blocks):
                    written_BTD = written_by(block, model, layer, stream.x_BTD, stream.beside[index][place])
                    stream.take_up(written_BTD, parallel=family.parallel)
                stream.end_layer()
            final = model.get_submodule(family.final_norm)(stream.x_BTD)
            assert torch.allclose(final[stream.mask_BT], expected[-1][stream.mask_BT], atol=1e-5)
