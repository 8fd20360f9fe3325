"""The pruners that come with pat, in the order of tables and docs."""

from __future__ import annotations

from pat.families.known import Family
from pat.models.budget import inner_units_fit, layers_and_neurons_fit, layers_fit, slices_fit, units_fit
from pat.models.on_paper import dropped_layers, kept_inner_units, kept_units, layers_and_neurons, sliced_width
from pat.pruners.registry import TUNED_AFTER, Pruner, register


def no_rotation(family: Family) -> str | None:
    """Return why a family's stream cannot be rotated."""
    return family.rotation_obstacle


def no_slicing(family: Family) -> str | None:
    """Return why a family's blocks cannot have bases of their own."""
    if family.has_experts:
        return "its feed-forward blocks are experts, which do not write through one layer"
    return "its blocks read the stream side by side, so that they share one basis" if family.parallel else family.rotation_obstacle


def no_window(family: Family) -> str | None:
    """Return why a family's layers cannot have different numbers of heads."""
    return family.reshaping_obstacle


def no_units(family: Family) -> str | None:
    """Return why a family's layers cannot lose heads or neurons."""
    return family.units_obstacle


for _pruner in (
    Pruner(
        "channel-fisher",
        "Channel Fisher",
        "pat.pruners.channel_fisher:prune_unfelt_channels",
        cuts="width",
        measures="text",
        summary="hidden channels that the loss feels least, `mask: fisher` at once",
        reach="all",
        when="to tell what a learned mask is worth beside the best order that needs no training",
        settings=("writers",),
    ),
    Pruner(
        "channel-magnitude",
        "Channel magnitude",
        "pat.pruners.channel_magnitude:prune_by_magnitude",
        cuts="width",
        measures="weights",
        summary="hidden channels with the smallest weights attached",
        reach="all",
        when="as the floor: it needs no text, and whatever does not beat it is not worth its time",
        settings=("writers",),
    ),
    Pruner(
        "slicegpt-1q",
        "SliceGPT-1Q",
        "pat.pruners.slicegpt_1q:prune_rotated",
        cuts="width",
        measures="text",
        summary="SliceGPT with one shared rotation: into the stream's principal basis, of which the leading directions stay",
        reach="all",
        when="where the number of layers and their inner sizes have to stay",
        settings=("tie", "basis", "writers"),
        obstacle=no_rotation,
    ),
    Pruner(
        "slicegpt",
        "SliceGPT",
        "pat.pruners.slicegpt:prune_block_by_block",
        cuts="slices",
        measures="text",
        summary="SliceGPT: a principal basis for every block, cut to its leading directions, with shortcuts; a reshaped model",
        reach="up to what shortcuts, head and last output leave",
        when="to compare with its paper; shortcuts cost parameters, and the model needs `import pat.reshaped`",
        size=sliced_width,
        within=slices_fit,
        settings=("size",),
        obstacle=no_slicing,
    ),
    Pruner(
        "llm-pruner",
        "LLM-Pruner",
        "pat.pruners.llm_pruner:prune_in_window",
        cuts="units",
        measures="text",
        summary="LLM-Pruner: heads and neurons by Taylor importance, the first and last layers whole; a reshaped model",
        reach="up to what heads and neurons of the layers between hold",
        when="to compare with its paper; layers of two sizes need `import pat.reshaped`",
        size=kept_inner_units,
        within=inner_units_fit,
        settings=("size", "writers", "protect_first", "protect_last"),
        obstacle=no_window,
    ),
    Pruner(
        "llm-pruner-uniform",
        "LLM-Pruner, uniform",
        "pat.pruners.llm_pruner:prune_units",
        cuts="units",
        measures="text",
        obstacle=no_units,
        summary="LLM-Pruner over all layers alike: a stock model",
        reach="up to what heads and neurons hold",
        when="where the hidden size has to stay and the model has to be stock",
        size=kept_units,
        within=units_fit,
        settings=("size", "writers"),
    ),
    Pruner(
        "wanda-sp",
        "Wanda-sp",
        "pat.pruners.wanda_sp:prune_by_activation",
        cuts="units",
        measures="text",
        obstacle=no_units,
        summary="Wanda-sp: heads and neurons by weight times activation, as many as LLM-Pruner over all layers",
        reach="up to what heads and neurons hold",
        when="as LLM-Pruner, uniform, where a backward pass does not fit the memory",
        orders=TUNED_AFTER,
        size=kept_units,
        within=units_fit,
        settings=("size", "writers"),
    ),
    Pruner(
        "shortgpt",
        "ShortGPT",
        "pat.pruners.shortgpt:prune_layers",
        cuts="layers",
        measures="text",
        summary="ShortGPT: whole layers, those that turn the stream least; as many as come nearest to the share asked for",
        reach="from half a layer's share to all but one layer's",
        when="where each token must be fast: fewer layers save time at any batch size",
        orders=TUNED_AFTER,
        settings=("writers",),
        size=dropped_layers,
        within=layers_fit,
        same="drop {size} of {layers} layers: must differ; keep one",
    ),
    Pruner(
        "layers-and-neurons",
        "Layers and neurons",
        "pat.pruners.layers_and_neurons:prune_layers_and_neurons",
        cuts="layers",
        measures="text",
        obstacle=no_units,
        summary=(
            "whole layers, in the order in which text needs them least, and feed-forward neurons by their Fisher information; how many of "
            "each, by the loss on calibration text; then every write is refitted to the whole model; a stock model"
        ),
        reach="up to what layers and neurons hold",
        when="the best at a given size on the one model of others measured so far, SmolLM2-135M; it takes longest",
        orders=TUNED_AFTER,
        settings=("writers",),
        size=layers_and_neurons,
        within=layers_and_neurons_fit,
        refits=True,
    ),
    Pruner(
        "minitron-width",
        "Minitron-style width",
        "pat.pruners.minitron_width:prune_quiet_channels",
        cuts="width",
        measures="text",
        summary="Minitron-style width: hidden channels by the size of the norms' outputs, no distillation",
        reach="all",
        when="to compare with its paper",
        orders=TUNED_AFTER,
        settings=("writers",),
    ),
):
    register(_pruner)
