"""What no verb can work on is refused up front in one sentence that names file, field and what would be right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pat.checkpoints.base_checks import check_base, check_checkpoint, check_model
from pat.checkpoints.checkpoint import check_opens, import_model, load_model, open_tokenizer
from pat.checkpoints.merge import merge
from pat.errors import UserError
from pat.pruners.pruning import prune
from tests.kit.tiny_models import CONFIGS, tiny_model
from tests.kit.tiny_world import write_world

Change = Callable[[Path], object]


def fields(**changed: Any) -> Change:
    """Return a change of some fields of config.json."""

    def change(base: Path) -> None:
        record = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(record | changed))

    return change


def changed_file(name: str, **changed: Any) -> Change:
    """Return a change of some fields of a JSON file."""

    def change(base: Path) -> None:
        record = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps(record | changed))

    return change


def without(name: str) -> Change:
    """Return a change that takes a field out of config.json."""

    def change(base: Path) -> None:
        record = json.loads((base / "config.json").read_text())
        record.pop(name)
        (base / "config.json").write_text(json.dumps(record))

    return change


def weights(change_tensors: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Return a change of the tensors."""

    def change(base: Path) -> None:
        tensors = load_file(base / "model.safetensors")
        change_tensors(tensors)
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})

    return change


def text(name: str, content: str) -> Change:
    """Return a change that writes a file."""
    return lambda base: (base / name).write_text(content)


def cut(name: str, share: float = 0.5) -> Change:
    """Return a change that truncates a file."""
    return lambda base: (base / name).write_bytes((base / name).read_bytes()[: int(share * (base / name).stat().st_size)])


def added_token(base: Path) -> None:
    record = json.loads((base / "tokenizer.json").read_text())
    record["added_tokens"].append({**record["added_tokens"][0], "id": 10_000, "content": "<more>"})
    (base / "tokenizer.json").write_text(json.dumps(record))


def renamed(old: str, new: str) -> Change:
    return weights(lambda tensors: tensors.update({new: tensors.pop(old)}))


def cast(name: str, dtype: torch.dtype) -> Change:
    return weights(lambda tensors: tensors.update({name: tensors[name].to(dtype)}))


Q, HEAD, EMBEDDING = "model.layers.1.self_attn.q_proj.weight", "lm_head.weight", "model.embed_tokens.weight"
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64}
REFUSED: dict[str, tuple[Change, str]] = {
    "bitsandbytes": (fields(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), r"quantised \(bitsandbytes\)"),
    "gptq": (fields(quantization_config={"quant_method": "gptq", "bits": 4}), r"quantised \(gptq\)"),
    "awq": (fields(quantization_config={"quant_method": "awq"}), r"quantised \(awq\)"),
    "fp8 config": (fields(quantization_config={"quant_method": "fp8"}), r"quantised \(fp8\)"),
    "quantisation that is no object": (fields(quantization_config="x"), r"quantised \(x\)"),
    "quantisation without a method": (fields(quantization_config={}), "an unnamed method"),
    "fp8 dtype": (fields(dtype="float8_e4m3fn"), "dtype: 'float8_e4m3fn': must be one of"),
    "integer dtype": (fields(torch_dtype="int8"), "torch_dtype: 'int8': must be one of"),
    "fp8 weights": (cast(Q, torch.float8_e4m3fn), "stored as F8_E4M3, as quantised weights are"),
    "integer weights": (cast(Q, torch.int8), "stored as I8, as quantised weights are"),
    "pad beyond": (fields(pad_token_id=500_000), r"config\.json: pad_token_id: 500000: lies beyond the vocabulary"),
    "eos beyond": (fields(eos_token_id=[2, 500_000]), "eos_token_id: 500000: lies beyond the vocabulary"),
    "bos below": (fields(bos_token_id=-7), "bos_token_id: -7: lies beyond"),
    "eos is a text": (fields(eos_token_id="</s>"), "eos_token_id: '</s>': must be the id of a token"),
    "generation's eos beyond": (text("generation_config.json", '{"eos_token_id": 99999}'), r"generation_config\.json: eos_token_id: 99999"),
    "generation is broken": (text("generation_config.json", '{"eos'), r"generation_config\.json: is not valid JSON"),
    "config is truncated": (cut("config.json"), r"config\.json: is not valid JSON"),
    "config is a list": (text("config.json", "[1]"), r"config\.json: must be a JSON object"),
    "config without a type": (without("model_type"), "has no `model_type`"),
    "unknown architecture": (fields(model_type="gpt2"), "architecture 'gpt2' is not known"),
    "type that is a list": (fields(model_type=["llama"]), r"model_type: \['llama'\]: must be the name of an architecture"),
    "no heads": (fields(num_attention_heads=0), "num_attention_heads: 0: must be a positive whole number"),
    "size as text": (fields(hidden_size="32"), "hidden_size: '32': must be a positive whole number"),
    "eps is no number": (fields(rms_norm_eps=float("nan")), "rms_norm_eps: is nan"),
    "theta is infinite": (
        fields(rope_parameters={"rope_type": "default", "rope_theta": float("inf")}),
        r"rope_parameters\.rope_theta: is inf",
    ),
    "an eps that leaves nothing of a norm": (fields(rms_norm_eps=1e30), r"rms_norm_eps: 1e\+30: must be a number between 0 and 1"),
    "dropout of more than all": (fields(attention_dropout=2), "attention_dropout: 2: must be a number from 0 to below 1"),
    "negative dropout": (fields(attention_dropout=-0.5), "attention_dropout: -0.5: must be"),
    "a window of nothing": (fields(sliding_window=0), "sliding_window: 0: must be a positive whole number"),
    "a window as text": (fields(sliding_window="x"), "sliding_window: 'x': must be a positive whole number"),
    "outputs without names": (fields(return_dict=False), "return_dict: false: the model would return its outputs without their names"),
    "a tie as text": (fields(tie_word_embeddings="yes"), "tie_word_embeddings: 'yes': must be true or false"),
    "states as text": (fields(output_hidden_states="x"), "output_hidden_states: 'x': must be true or false"),
    "one position": (fields(max_position_embeddings=1), "max_position_embeddings: 1: must be at least 2"),
    "heads that do not divide": (
        fields(num_attention_heads=5, num_key_value_heads=5, head_dim=None),
        "num_attention_heads: 5: must divide hidden_size, which is 32",
    ),
    "key heads that do not divide": (fields(num_key_value_heads=3), "num_key_value_heads: 3: must divide num_attention_heads"),
    "theta of nothing": (fields(rope_parameters={"rope_theta": 0}), r"rope_parameters\.rope_theta: 0: must be a number above 0"),
    "theta as text": (fields(rope_theta="1e4"), "rope_theta: '1e4': must be a number above 0"),
    "factor of nothing": (fields(rope_scaling={"rope_type": "linear", "factor": 0}), r"rope_scaling\.factor: 0: must be a number above 0"),
    "two thetas": (
        fields(rope_theta=5e5, rope_parameters={"rope_theta": 1e4}),
        "rope_theta: 500000.0 contradicts rope_parameters.rope_theta, 10000.0",
    ),
    "more layers than tensors": (fields(num_hidden_layers=10**6), "num_hidden_layers is 1000000, but its weights hold"),
    "rope is a text": (fields(rope_parameters="default"), "rope_parameters: 'default': must be an object"),
    "LongRoPE": (fields(rope_parameters=LONG), "LongRoPE changes the positions of all texts of a batch.*max_position_embeddings to 64"),
    "LongRoPE as 4.x writes it": (fields(rope_scaling=LONG | {"type": "su", "rope_type": "su"}), "rope_scaling: LongRoPE"),
    "weights are truncated": (cut("model.safetensors", 0.9), r"model\.safetensors: is not a readable.*truncated"),
    "weights are no weights": (text("model.safetensors", "no weights"), "is not a readable safetensors file"),
    "weights are empty": (text("model.safetensors", ""), "is not a readable safetensors file"),
    "missing tensor": (weights(lambda tensors: tensors.pop(Q)), r"missing tensor\(s\) model\.layers\.1\.self_attn\.q_proj\.weight"),
    "stray tensor": (renamed(Q, "model.layers.1.self_attn.odd.weight"), "self_attn.odd.weight' is not part of a 'llama' model"),
    "too many layers": (fields(num_hidden_layers=1), "unexpected tensors of layer 1, num_hidden_layers is 1"),
    "too few layers": (fields(num_hidden_layers=3), r"missing tensor\(s\) model\.layers\.2"),
    "other vocabulary": (fields(vocab_size=10_000), "vocab_size is 10000"),
    "other width": (fields(hidden_size=64), "hidden_size is 64"),
    "tied with a head of its own": (
        fields(tie_word_embeddings=True),
        "lm_head.weight of its own, which transformers would keep; set it to false",
    ),
    "untied without a head": (weights(lambda tensors: tensors.pop(HEAD)), "hold no lm_head.weight; set it to true"),
    "tokenizer is truncated": (cut("tokenizer.json"), r"tokenizer\.json: is not valid JSON"),
    "tokenizer config is a list": (text("tokenizer_config.json", "[]"), r"tokenizer_config\.json: must be a JSON object"),
    "tokenizer without a vocabulary": (text("tokenizer.json", "{}"), r"tokenizer\.json: holds no vocabulary"),
    "tokenizer with odd ids": (text("tokenizer.json", '{"model": {"vocab": {"a": "b"}}}'), "its vocabulary is not tokens with ids"),
    "a mark that is no token": (
        changed_file("tokenizer_config.json", pad_token="<nothing>"),
        r"tokenizer_config\.json: the mark\(s\) '<nothing>' are no tokens of tokenizer\.json and would be given ids beyond the embedding's",
    ),
    "a length as text": (changed_file("tokenizer_config.json", model_max_length="x"), "model_max_length: 'x': must be a positive number"),
    "a length of nothing": (changed_file("tokenizer_config.json", model_max_length=-1), "model_max_length: -1: must be a positive number"),
    "a merge that is broken": (text("merge.json", "{"), r"merge\.json: is not valid JSON"),
    "a merge of nothing": (text("merge.json", '{"base": 3}'), r"merge\.json: does not say which sizes its base has"),
    "a pruning of no size": (text("prune.json", '{"base": {"hidden_size": 3}}'), r"prune\.json: does not say which sizes its base has"),
    "an origin that is broken": (text("origin.json", "{"), r"origin\.json: is not valid JSON"),
    "an origin of nothing": (text("origin.json", '{"file": 3}'), r"origin\.json: lacks file, dtype, quantised"),
    "token beyond the embedding": (added_token, r"token '<more>' has the id 10000, beyond the embedding's \d+ rows"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))[0]


def copy(base: Path, folder: Path) -> Path:
    """Copy a base without its manifest."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("fault", REFUSED)
def test_a_fault_is_told_by_name(fault: str, world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    check_base(base, tokenizer=True)
    change, message = REFUSED[fault]
    change(base)
    with pytest.raises(UserError, match=message) as told:
        check_base(base, tokenizer=True)
    assert "\n" not in str(told.value)


def test_a_mark_that_a_padded_embedding_has_a_row_for_passes(world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(base)
    changed_file("tokenizer_config.json", pad_token="<more>")(base)
    check_base(base, tokenizer=True)
    assert open_tokenizer(base).pad_token_id < model.config.vocab_size


def test_what_only_the_tokenizer_itself_tells_is_one_line(world: Path, tmp_path: Path) -> None:
    for number, change in enumerate((
        changed_file("tokenizer_config.json", extra_special_tokens=["<more>"]), changed_file("tokenizer_config.json", tokenizer_class=3),
        changed_file("tokenizer.json", post_processor={"type": "x"}), changed_file("tokenizer_config.json", added_tokens_decoder={"x": 1}),
    )):  # fmt: skip
        base = copy(world, tmp_path / str(number))
        change(base)
        with pytest.raises(UserError) as told:
            import_model(base, tmp_path / "out")
        assert "\n" not in str(told.value) and str(base) in str(told.value)


def test_an_import_reads_what_the_folder_says_of_itself(world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    text("manifest.json", json.dumps({"files": {"config.json": {"bytes": 1, "sha256": "0"}}}))(base)
    with pytest.raises(UserError, match=r"config\.json"):
        import_model(base, tmp_path / "out")


def test_an_embedding_of_nothing_is_told_when_it_is_loaded(world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    weights(lambda tensors: tensors["model.embed_tokens.weight"].zero_())(base)
    with pytest.raises(UserError, match=r"embed_tokens\.weight is all zero"):
        load_model(base)


def test_weights_in_one_file_beside_an_index_of_others_are_not_guessed_at(world: Path, tmp_path: Path) -> None:
    """As saving over an older, larger model leaves them: what was tuned on the one would be merged into the other."""
    base = copy(world, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    shard = "model-00001-of-00001.safetensors"
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, base / shard, metadata={"format": "pt"})
    text("model.safetensors.index.json", json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))(base)
    with pytest.raises(UserError, match=r"holds model\.safetensors and beside it model\.safetensors\.index\.json of other files"):
        check_base(base)
    text("model.safetensors.index.json", json.dumps({"weight_map": dict.fromkeys(tensors, "model.safetensors")}))(base)
    check_base(base)


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        check_checkpoint(tmp_path / "nothing")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="it is an adapter: give the model that it was tuned on"):
        check_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=r"model\.safetensors: no such file; the folder holds an adapter"):
        check_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickles, which are never loaded"):
        check_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "model.gguf")
    with pytest.raises(UserError, match=r"its \.gguf file is of another format"):
        check_checkpoint(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        check_checkpoint(tmp_path / "config.json")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_passes(name: str, tmp_path: Path) -> None:
    tiny_model(name).save_pretrained(tmp_path)
    check_base(tmp_path)
    with pytest.raises(UserError, match="has no tokenizer"):
        check_base(tmp_path, tokenizer=True)


def test_a_missing_tie_flag_means_the_family_s_default(tmp_path: Path) -> None:
    for name, folder in (("gemma", tmp_path / "gemma"), ("llama", tmp_path / "llama")):
        tiny_model(name).save_pretrained(folder)
        without("tie_word_embeddings")(folder)
        check_base(folder)


def test_a_head_that_is_the_embedding_once_more_passes(tmp_path: Path) -> None:
    tiny_model("llama-grouped-tied").save_pretrained(tmp_path)
    weights(lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))(tmp_path)
    check_base(tmp_path)
    weights(lambda tensors: tensors[HEAD][-1].add_(1e-3))(tmp_path)
    with pytest.raises(UserError, match="of its own"):
        check_base(tmp_path)
    # It is what transformers does: it keeps the head, whatever the flag says.
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_old_marks_and_short_longrope_pass(world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    fields(pad_token_id=-1)(base)
    check_base(base)
    fields(rope_parameters=LONG | {"original_max_position_embeddings": 256}, max_position_embeddings=256)(base)
    check_base(base)


def test_other_architectures_can_be_imported_for_evaluation(world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    fields(model_type="olmo")(base)
    check_model(base)
    fields(model_type="llama", tie_word_embeddings=True)(base)
    with pytest.raises(UserError, match="of its own"):
        import_model(base, tmp_path / "imported")


@pytest.mark.parametrize(
    "odd", [{"hidden_act": "nothing"}, {"hidden_act": 5}, {"rms_norm_eps": "small"}, {"head_dim": 7}, {"rope_parameters": {"rope_type": "odd"}},
            {"attention_dropout": {}}, {"num_key_value_heads": 3}, {"layer_types": 3}, {"torch_dtype": None, "architectures": 3}],
    ids=str,
)  # fmt: skip
def test_what_only_transformers_can_tell_is_one_line_too(odd: dict[str, Any], world: Path, tmp_path: Path) -> None:
    base = copy(world, tmp_path / "base")
    fields(**odd)(base)
    try:
        load_model(base)
    except UserError as told:
        assert "\n" not in str(told) and str(base) in str(told)


@pytest.mark.parametrize(
    "odd", [{"hidden_act": "nothing"}, {"head_dim": 6}, {"rope_parameters": {"rope_type": "odd"}}, {"num_key_value_heads": 1}], ids=str
)
@pytest.mark.parametrize("verb", ["merge", "prune", "import"])
def test_what_only_transformers_can_tell_is_told_before_anything_is_written(
    verb: str, odd: dict[str, Any], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = copy(world, tmp_path / "base")
    fields(**odd)(base)
    monkeypatch.setattr("pat.io.artefacts.new_folder", None)
    verbs: dict[str, Callable[[], object]] = {
        "merge": lambda: merge(base, tmp_path / "adapter", tmp_path / "out"),
        "prune": lambda: prune(base, "channel-magnitude", 0.5, 4, tmp_path / "out"),
        "import": lambda: import_model(base, tmp_path / "out"),
    }
    with pytest.raises(UserError, match=r"makes no model|mismatched tensor model\.layers\.0\.self_attn") as told:
        verbs[verb]()
    assert "\n" not in str(told.value)


def test_what_a_load_stumbles_over_is_told_by_its_tensor(world: Path, tmp_path: Path) -> None:
    for number, (change, message) in enumerate((
        (weights(lambda tensors: tensors.update({Q: tensors[Q][None].clone()})), r"mismatched tensor .*q_proj\.weight of shape \[1, 32, 32\]"),
        (weights(lambda tensors: tensors.update({Q: torch.zeros(0, 32)})), r"mismatched tensor .*q_proj\.weight of shape \[0, 32\]"),
        (weights(lambda tensors: tensors.update({Q.replace("weight", "bias"): torch.ones(32)})), r"unexpected tensor\S* .*q_proj\.bias"),
    )):  # fmt: skip
        base = copy(world, tmp_path / str(number))
        change(base)
        for verb in (load_model, check_opens):
            with pytest.raises(UserError, match=message):
                verb(base)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_opens(name: str, tmp_path: Path) -> None:
    tiny_model(name).save_pretrained(tmp_path)
    check_opens(tmp_path)


def test_it_needs_no_torch_and_reads_no_weights(world: Path, tmp_path: Path) -> None:
    probe = (
        "import sys; from pathlib import Path; from pat.checkpoints.base_checks import check_base; check_base(Path(sys.argv[1])); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe, str(world)], check=True)
    large, _ = write_world(tmp_path, 1024)
    before = bytes_read()
    check_base(large)
    assert bytes_read() - before < (large / "model.safetensors").stat().st_size / 4


def bytes_read() -> int:
    """Return how much this process has read from files so far, as Linux counts it."""
    return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].split()[0])
