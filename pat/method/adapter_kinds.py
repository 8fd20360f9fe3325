"""Which adapters can be folded: what of PEFT's settings the fold takes up, what has no effect on it, and that all else is refused by name.

Starts such as PiSSA's change the base when an adapter is made, and its file holds what was learned on that other base alone.
"""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig

from pat.errors import UserError
from pat.method.adapter_folder import ADAPTER_CONFIG_NAME, lora_settings

FOLDED_FIELDS = {"r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
FIELDS_WITHOUT_EFFECT = {
    "task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "target_modules",
    "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config", "ensure_weight_tying", "velora_config",
}  # fmt: skip
"""On what a finished adapter computes; those that belong to a start have their say in `init_lora_weights`."""
FOLDED_STARTS: tuple[object, ...] = (True, False, "gaussian", "orthogonal", "eva", "mica")
"""Starts that leave the base's weights as they are."""
NO_PART_OF_A_LANGUAGE_MODEL = {"classifier", "score"}
NOTHING: tuple[object, ...] = (None, False, [], {}, ())


def refuse_what_cannot_be_folded(folder: Path) -> None:
    """Raise UserError on every field that is neither folded nor of no effect and not at its default, those of later versions included."""
    path = folder / ADAPTER_CONFIG_NAME
    record = lora_settings(folder)
    if (kind := record.get("peft_type")) != "LORA":
        raise UserError(f"{folder}: holds a {kind} adapter; only LoRA and DoRA can be folded")
    if (start := record.get("init_lora_weights", True)) not in FOLDED_STARTS:
        raise UserError(
            f"{path}: init_lora_weights: {start!r}: this start changes the base's weights, or may, and the adapter does not hold how; save "
            "it by PEFT's save_pretrained with path_initial_model_for_weight_conversion, which makes plain LoRA of it"
        )
    default = LoraConfig()
    odd = [
        name
        for name, value in record.items()
        if name not in FOLDED_FIELDS | FIELDS_WITHOUT_EFFECT and value not in NOTHING and value != getattr(default, name, None)
    ]
    if "modules_to_save" in odd and set(record["modules_to_save"]) <= NO_PART_OF_A_LANGUAGE_MODEL:
        odd.remove("modules_to_save")
    if odd:
        raise UserError(f"{path}: {', '.join(odd)}: set in a way that the merge does not fold; use the default")
