"""The model that a tuning trains: the base as it is loaded, with what the tuner adds to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from pat.checkpoints import checkpoint
from pat.checkpoints.readers_record import kept_channels
from pat.data.calibration import Blocks, Calibration, blocks_for
from pat.families.known import family_of
from pat.method.model import PatModel, attach, lora_config
from pat.method.one_adapter import check_one_width
from pat.models.sharding import leave_out_shards
from pat.training.mask_choice import fisher_order
from pat.training.request import Arm, TuningRequest


def build_model(request: TuningRequest) -> PeftModel:
    """Return the base model with LoRA or DoRA on every linear layer, and the HSMs where the tuner prunes.

    What the mask's choices are measured on is the instruction set.
    """
    if request.masked:
        check_one_width(request.model_config)
    dtype = torch.bfloat16 if request.tuning.precision == "bf16" else torch.float32
    sharded = request.sharded
    stock = checkpoint.load_model(request.base, dtype, sharded=sharded)
    if not sharded:
        stock.to(torch.device(request.device))  # type: ignore[arg-type]  # transformers' annotation wraps nn.Module.to wrongly
    stock.config.use_cache = False
    kept = kept_channels(request.base) if request.masked else None
    measured = request.masked and request.job.pat.measured and kept is None
    judged = request.masked and not request.job.pat.fixed_mask and request.ratio > 0
    calibration = Calibration(request.data, seed=request.seed, device=request.device, columns=request.columns)
    text = blocks_for(stock.config, calibration, request.tokenizer) if measured or judged else None
    fisher_D = fisher_order(stock, text) if judged and text is not None else None
    model = adapted(stock, request, text, kept)
    if isinstance(model, PatModel):
        model.fisher_order = fisher_D
    if sharded:
        leave_out_shards(model)
    return model


def adapted(stock: PreTrainedModel, arm: Arm, text: Blocks | None = None, kept: Sequence[int] | None = None) -> PeftModel:
    """Return `stock`, changed in place, with what the tuner adds; `text` and `kept` as `attach` takes them.

    Raises UserError where the mask's settings do not fit the model, or lack text or channels.
    """
    if arm.masked:
        return attach(stock, arm.pat_config, text, kept)
    lora = arm.tuning.lora
    config = lora_config(family_of(stock.config), lora.rank, lora.alpha, lora.dropout, use_dora=arm.with_dora)
    with_lora = get_peft_model(stock, config)
    assert isinstance(with_lora, PeftModel)
    return with_lora
