"""What passes through a model on calibration text, from forward passes alone: no gradients, one batch of activations at a time.

Owns the text's packing into batches, the forward passes and the statistics that only they can give. What is removed for them is the
pruners'. Axes: B samples, T tokens, N tokens that count, D channels, I inputs of a linear layer, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.data.calibration import Calibration, blocks
from pat.families.known import family_of
from pat.models.hooks import removed_behind

Batches = Iterable[dict[str, Tensor]]
Visit = Callable[[str, Tensor, Tensor, Tensor], None]
SAMPLE_LENGTH = 128
TOKENS_AT_ONCE = 8192


def samples(source: Path, calibration: Calibration, count: int) -> Iterator[dict[str, Tensor]]:
    """Yield a model's arguments: `count` samples of 128 tokens, fewer where the calibration text is shorter, some at a time."""
    length = min(SAMPLE_LENGTH, checkpoint.load_config(source).max_position_embeddings)
    text = blocks(calibration, checkpoint.load_tokenizer(source), length, count * length)
    return text.batches(max(1, TOKENS_AT_ONCE // length))


@torch.no_grad()
def visit_modules(model: PreTrainedModel, batches: Batches, names: Iterable[str], visit: Visit) -> None:
    """Run `model` on the batches and hand `visit` each named module's name, first input, output and the (B, T) mask of real tokens."""
    mask_BT = torch.empty(0)

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        # Some layers have no axis of their own for tokens: theirs lie one after the other.
        def by_row(tensor: Tensor) -> Tensor:
            return tensor.reshape(*mask_BT.shape, tensor.shape[-1])

        return lambda _module, inputs, output: visit(name, by_row(inputs[0]), by_row(output), mask_BT)

    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    with removed_behind(hooks):
        for batch in batches:
            arguments = {name: tensor.to(model.device) for name, tensor in batch.items()}
            mask_BT = arguments["attention_mask"].bool()
            model(**arguments, use_cache=False)


def input_norms(model: PreTrainedModel, batches: Batches, linears: Iterable[str]) -> dict[str, Tensor]:
    """Return the l2 norm over all real tokens of each input of the named linear layers, (I,) in fp64, by the layer's name."""
    squares: dict[str, Tensor] = {}

    def add(name: str, inputs_BTI: Tensor, _output: Tensor, mask_BT: Tensor) -> None:
        squares_I = inputs_BTI[mask_BT].double().square().sum(0)
        squares[name] = squares[name] + squares_I if name in squares else squares_I

    visit_modules(model, batches, linears, add)
    return {name: squares_I.sqrt() for name, squares_I in squares.items()}


def block_influence(model: PreTrainedModel, batches: Batches) -> Tensor:
    """Return 1 − E[cos(x_in, x_out)] of each decoder layer over all real tokens, (L,) in fp64 (ShortGPT, block influence)."""
    family, count = family_of(model.config), model.config.num_hidden_layers
    places = {f"{family.layers}.{layer}": layer for layer in range(count)}
    cosines_L = torch.zeros(count, dtype=torch.float64)
    tokens_L = torch.zeros(count, dtype=torch.float64)

    def add(name: str, inputs_BTD: Tensor, outputs_BTD: Tensor, mask_BT: Tensor) -> None:
        cosines_N = cosine_similarity(inputs_BTD[mask_BT].double(), outputs_BTD[mask_BT].double(), dim=-1)
        cosines_L[places[name]] += cosines_N.sum().cpu()
        tokens_L[places[name]] += len(cosines_N)

    visit_modules(model, batches, places, add)
    return 1.0 - cosines_L / tokens_L


def channel_activations(model: PreTrainedModel, batches: Batches) -> Tensor:
    """Return each channel's activation, (D,) in fp64: |y| of what readers get, meaned over a sample's real tokens, l2 over the samples.

    Summed over all places where the stream is read, the norms' gains included: one set of channels is kept for the whole model (Minitron,
    importance).
    """
    sites = {site.name: site for site in family_of(model.config).sites(model.config.num_hidden_layers)}
    squares = {name: torch.zeros(model.config.hidden_size, dtype=torch.float64, device=model.device) for name in sites}

    def add(name: str, inputs_BTD: Tensor, outputs_BTD: Tensor, mask_BT: Tensor) -> None:
        read_BTD = inputs_BTD if sites[name].norm is None else outputs_BTD
        sums_BD = read_BTD.double().abs().mul_(mask_BT[:, :, None]).sum(1)
        squares[name] += (sums_BD / mask_BT.sum(1, keepdim=True)).square().sum(0)

    visit_modules(model, batches, sites, add)
    return torch.stack([squares_D.sqrt() for squares_D in squares.values()]).sum(0).cpu()
