"""PEFT's methods on adapters, for a model that has exactly one: its LoRA and its HSMs belong together and act together.

Each does what it does on any PeftModel, the HSMs included, or raises with a sentence. test_peft_surface.py holds the whole list of
PEFT's methods against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from peft import PeftModel, PeftModelForCausalLM
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from pat.errors import SettingError, UserError
from pat.io.artefacts import write_text
from pat.method.adapter_folder import CARD
from pat.models.reshaped import ReshapedConfig


def check_bare(model: nn.Module) -> None:
    """Raise UserError where a model has an adapter already."""
    if isinstance(model, PeftModel):
        raise UserError(
            "PAT is attached to a stock model, and this is a PeftModel: give what its merge_and_unload() or its unload() returns"
        )
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise UserError("this model has an adapter already: unload() that one first, or load the base model again")


def check_one_width(config: object) -> None:
    """Raise SettingError on a reshaped model: its streams or layers differ, and one mask does not go through them."""
    if isinstance(config, ReshapedConfig):
        raise SettingError("PAT cannot narrow a reshaped model, whose layers differ; tune it with LoRA or DoRA")


class OneAdapter(PeftModelForCausalLM):
    """A PeftModel of one LoRA adapter. `compacted` says whether its base has been cut; what needs the whole of it is refused then."""

    compacted = False

    @property
    def adapter_name(self) -> str:
        """The name of the one adapter."""
        [name] = self.peft_config
        return str(name)

    @property
    def adapter_disabled(self) -> bool:
        """Whether the adapter is switched off, by whatever switch of PEFT's or of transformers'."""
        return self.a_lora_layer().disable_adapters

    @property
    def adapter_merged(self) -> bool:
        """Whether LoRA has been merged into the base's weights, from which `unmerge_adapter` takes it out again."""
        return bool(self.a_lora_layer().merged)

    def a_lora_layer(self) -> LoraLayer:
        """Return one of the LoRA layers, which are switched and merged together."""
        return next(module for module in self.modules() if isinstance(module, LoraLayer))

    def check_whole(self, what: str) -> None:
        """Raise UserError where the base has been cut."""
        if self.compacted:
            raise UserError(f"a compacted model cannot be {what}: save its adapter and open it on the whole base model")

    def check_unmerged(self, what: str) -> None:
        """Raise UserError where LoRA is part of the base's weights."""
        if self.adapter_merged:
            raise UserError(f"this model cannot be {what} while LoRA is merged into its base: call unmerge_adapter() first")

    def check_own_name(self, names: str | Sequence[str] | None) -> None:
        """Raise UserError where adapters are named that are not there."""
        named = [names] if isinstance(names, str) else list(names or [self.adapter_name])
        if named != [self.adapter_name]:
            raise UserError(f"adapter {', '.join(map(repr, named))}: a PatModel has one adapter, named {self.adapter_name!r}")

    def _refuse_more(self, method: str) -> NoReturn:
        raise UserError(
            f"{method}: a PatModel has one adapter, whose mask and operators all of the model goes through: open each adapter on a base "
            "model of its own (as a trainer's reference model, load the base once more)"
        )

    def add_adapter(self, *_args: Any, **_kwargs: Any) -> None:
        """Refused: HSMs act on the whole model, so that a second adapter would go through the first one's."""
        self._refuse_more("add_adapter")

    def add_weighted_adapter(self, *_args: Any, **_kwargs: Any) -> None:
        """Refused, as `add_adapter`."""
        self._refuse_more("add_weighted_adapter")

    def inject_adapter(self, *_args: Any, **_kwargs: Any) -> None:
        """Refused, as `add_adapter`."""
        self._refuse_more("inject_adapter")

    def delete_adapter(self, adapter_name: str) -> None:
        """Refused: nothing would be left."""
        self.check_own_name(adapter_name)
        raise UserError(f"delete_adapter({adapter_name!r}): is the only adapter; unload() gives the base model back")

    def subtract_mutated_init(self, *_args: Any, **_kwargs: Any) -> None:
        """Refused: LoRA starts at zero."""
        raise UserError(
            "subtract_mutated_init: a PatModel's LoRA starts at zero and changes no weight of the base; there is none to take back"
        )

    def get_prompt(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused: there are no prompts that are learned."""
        raise UserError("get_prompt: a PatModel learns no prompts")

    def get_prompt_embedding_to_save(self, adapter_name: str) -> NoReturn:
        """Refused, as `get_prompt`."""
        raise UserError("get_prompt_embedding_to_save: a PatModel learns no prompts")

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return False: no LoRA does what the HSMs do."""
        return False

    def set_adapter(self, adapter_name: str, inference_mode: bool = False) -> None:
        """Make the one adapter trainable, or not, LoRA and HSMs together."""
        self.check_own_name(adapter_name)
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        self.set_requires_grad(adapter_name, requires_grad=not inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Make the one adapter trainable, or not, LoRA and HSMs together."""
        self.check_own_name(adapter_names)
        super().set_requires_grad(adapter_names, requires_grad=requires_grad)
        self.requires_grad_frozen(requires_grad)

    def requires_grad_frozen(self, is_trainable: bool) -> None:
        """Make the HSMs follow the adapter: trainable or not."""
        raise NotImplementedError

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge LoRA into the base's weights, in place; the HSMs go on behind them, and the model computes what it did."""
        self.check_whole("merged")
        self.check_own_name(adapter_names)
        self.base_model.merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)  # type: ignore[operator]

    def unmerge_adapter(self) -> None:
        """Take LoRA out of the base's weights again."""
        self.check_whole("unmerged")
        self.base_model.unmerge_adapter()  # type: ignore[operator]

    def disable_adapter_layers(self) -> None:
        """Switch the adapter off, LoRA and HSMs together: the model is the base model until `enable_adapter_layers`."""
        self.check_whole("had without its adapter")
        self.base_model.disable_adapter_layers()  # type: ignore[operator]

    def enable_adapter_layers(self) -> None:
        """Switch the adapter on again."""
        self.base_model.enable_adapter_layers()  # type: ignore[operator]

    def unload(self) -> PreTrainedModel:
        """Return the base model, in place, with neither LoRA nor HSMs; what was trained is lost unless it was saved."""
        self.check_whole("unloaded")
        self.check_unmerged("unloaded")
        self.remove_hooks()
        stock = self.base_model.unload()  # type: ignore[operator]
        assert isinstance(stock, PreTrainedModel)
        return stock

    def remove_hooks(self) -> None:
        """Take the HSMs from behind the base's modules."""
        raise NotImplementedError

    def create_or_update_model_card(self, output_dir: str) -> None:
        """Write a card that says what the folder is, where it has none."""
        path = Path(output_dir) / "README.md"
        if not path.exists():
            write_text(path, CARD)
