"""Files of a model whose content is not what transformers and vLLM read alike: refused in one sentence."""

import json
import shutil
import struct
from pathlib import Path

import pytest
from sweeps import MakeSweep
from worlds.prepare import refusal, split_into_shards


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy model, to be spoiled."""
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.mark.parametrize(
    "header", ["[]", '{"a": 1}', '{"a": {}}', '{"a": {"data_offsets": []}}', '{"a": {"data_offsets": [0, 0]}}']
)
def test_a_weight_file_whose_header_describes_no_tensors_is_refused(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, header: str
) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    assert "model.safetensors is not in safetensors format" in refusal(make_sweep, folder, tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"metadata": {}, "weight_map": {}}, "has no weight_map"),
        ({"metadata": {}, "weight_map": {"a": ["b"]}}, "names ['b'], which is no file of its folder"),
        ({"metadata": {}, "weight_map": {"a": "../model.safetensors"}}, "which is no file of its folder"),
        ({"weight_map": {"a": "a.safetensors"}}, "or no metadata"),
        ([], "has no weight_map"),
    ],
)
def test_an_index_that_names_no_files_is_refused(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, index: object, message: str
) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert message in refusal(make_sweep, folder, tmp_path)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model.fp16.safetensors"])
def test_weights_that_only_vllm_would_load_are_refused(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(folder / "model.safetensors", folder / name)
    text = refusal(make_sweep, folder, tmp_path)
    assert text.startswith("model: training would load model.safetensors, and vLLM ")
    assert name in text


def test_shards_beside_a_single_file_are_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    split_into_shards(folder)
    (folder / "model.safetensors").write_bytes(whole)
    text = refusal(make_sweep, folder, tmp_path)
    assert "training would load model.safetensors, and vLLM model-00001-of-00002.safetensors, model-00002" in text


def test_an_adapter_in_the_models_folder_is_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "elsewhere/model"}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert "has an adapter next to the model (adapter_config.json)" in refusal(make_sweep, folder, tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(make_sweep: MakeSweep, folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in refusal(make_sweep, folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("generation_config.json", b"[]"),
        ("generation_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_file_of_the_model_with_any_content_is_refused_in_one_sentence(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    text = refusal(make_sweep, folder, tmp_path)
    assert text.startswith("model: cannot be loaded: ")
    assert text.endswith("Check the files of that folder: config.json, tokenizer and weights, as transformers saves "
                         "them, in UTF-8.")  # fmt: skip


@pytest.mark.parametrize("content", [b"null", b"[]", b"{", b"[" * 100_000, b"\xff\xfe{\0}\0"], ids=len)
def test_a_configuration_that_is_no_json_object_is_refused(
    make_sweep: MakeSweep, folder: Path, tmp_path: Path, content: bytes
) -> None:
    (folder / "config.json").write_bytes(content)
    assert "its config.json is not a JSON object" in refusal(make_sweep, folder, tmp_path)
