"""Attention that is causal by its kernel alone: for batches in which no real token would see padding. No mask is made for it.

A stock model looks at every batch whether its mask can be left out, and whoever fills the GPU's queue waits there.
"""

from __future__ import annotations

from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pat.families.known import attention_window

CAUSAL = "causal_sdpa"

# transformers makes no mask for an attention of which it does not know what mask it takes.
AttentionInterface.register(CAUSAL, sdpa_attention_forward)


def rely_on_causal_kernel(stock: PreTrainedModel, longest: int) -> None:
    """Have a model make no masks and ignore those it is given; rows of at most `longest` tokens must be padded on the right, or not at all.

    The kernel is sdpa's. A model whose attention has a window narrower than `longest` needs its mask and is left as it is, and so is one
    that does not attend by sdpa now: Gemma 2 caps its attention's logits, which the kernel does not.
    """
    window = attention_window(stock.config)
    if stock.config._attn_implementation == "sdpa" and (window is None or window >= longest):
        stock.set_attn_implementation(CAUSAL)
