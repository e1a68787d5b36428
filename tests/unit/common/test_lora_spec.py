"""``training.lora``: layers by name, by expression or all; ranks and scales with the meaning that PEFT gives them."""

from typing import Any

import pytest
from pydantic import ValidationError
from sweeps import small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.specs import LoraSpec

QUERY = "model.layers.3.self_attn.q_proj"


@pytest.mark.parametrize(
    ("targets", "is_target"),
    [
        ("all-linear", True),
        (["all-linear"], True),
        ("q_proj", True),
        (["k_proj", "self_attn.q_proj"], True),
        (r"layers\.[0-3]\..*", True),
        (r"layers\.[0-2]\..*", False),
        ("proj", False),
        ("q_pro", False),
        (r".*\.(q|v)_proj", True),
        ("(?i:Q_PROJ)", True),
        (r"(?P<first>q)_proj(?!(?P=first))", True),
        (r"[\\12]_proj", False),
    ],
)
def test_a_target_matches_the_end_of_a_name_from_a_dot_on(targets: Any, is_target: bool) -> None:
    assert LoraSpec(target_modules=targets).targets(QUERY) is is_target


def test_a_pattern_that_matches_decides_rank_and_alpha() -> None:
    lora = LoraSpec(r=16, alpha=32, rank_pattern={"q_proj": 4, "v_proj": 64}, alpha_pattern={r"layers\.3\..*": 8})
    other = "model.layers.2.self_attn.k_proj"
    assert (lora.rank_of(QUERY), lora.alpha_of(QUERY)) == (4, 8.0)
    assert (lora.rank_of(other), lora.alpha_of(other)) == (16, 32.0)
    assert lora.largest_rank == 64


def test_settings_that_are_left_out_are_not_part_of_a_sweeps_hash() -> None:
    assert set(LoraSpec().model_dump()) == {"r", "alpha", "dropout", "target_modules"}
    plain = small_sweep()
    for change in ({"use_rslora": True}, {"rank_pattern": {"q_proj": 8}}, {"alpha_pattern": {"q_proj": 8}}):
        assert small_sweep(training={"lora": change}).spec_hash != plain.spec_hash
    assert small_sweep(training={"lora": {"use_rslora": False, "rank_pattern": {}}}).spec_hash == plain.spec_hash


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"target_modules": "("}, "is neither a layer's name nor a regular expression: missing"),
        ({"target_modules": []}, "at least 1 item"),
        ({"target_modules": ""}, "at least 1 character"),
        ({"target_modules": ["all-linear", "q_proj"]}, "all-linear selects every layer: remove the other entries"),
        (
            {"target_modules": "(?i)q_proj"},
            r"sets flags for the whole expression: write a group with flags, such as \(\?i:q_proj",
        ),
        ({"target_modules": "a)|(b"}, "is neither a layer's name nor a regular expression: unbalanced"),
        ({"target_modules": "a{99999999999}"}, "is neither a layer's name nor a regular expression: the repetition"),
        ({"target_modules": r"layers\.(.)\.mlp\.\1"}, "refers to a group by number, but PEFT inserts groups before it"),
        ({"alpha_pattern": {r"(q)?(?(1)_proj|up)": 8}}, "refers to a group by number"),
        ({"rank_pattern": {"*": 8}}, "is neither a layer's name nor a regular expression: nothing to repeat"),
        ({"rank_pattern": {"q_proj": 0}}, "greater than or equal to 1"),
        ({"alpha_pattern": {"q_proj": 0}}, "greater than 0"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "finite number"),
    ],
)
def test_a_bad_setting_is_refused_by_name(lora: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LoraSpec(**lora)


def test_a_rank_that_is_not_served_is_refused_wherever_it_is_written() -> None:
    for field, lora in (("r", {"r": 128}), ("rank_pattern", {"rank_pattern": {"q_proj": 128}})):
        with pytest.raises(ConfigError, match=rf"training.lora.{field} is 128, above serving.max_lora_rank 64"):
            small_sweep(training={"lora": lora})
