"""``serving.extra_args`` before training, checked by the parser of the vLLM that is installed."""

import warnings
from pathlib import Path

import pytest

from surogate_bench.errors import ConfigError
from surogate_bench_model_server.vllm.arguments import check_vllm_arguments

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM and what it imports warn about each other
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.platforms.cpu import CpuPlatform

    # The import, where its warnings are no errors. The parser loads vLLM's plug-ins, which other tests do themselves.
    stock = CpuPlatform.__dict__["get_punica_wrapper"]
    check_vllm_arguments(["--max-num-seqs", "8"])
    CpuPlatform.get_punica_wrapper = stock

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--max-num-seqs", "8"),
        ("--max_num_seqs=8", "--no-enable-prefix-caching"),
        ("--compilation-config.mode", "0"),
    ],
)
def test_arguments_of_vllm_are_accepted(arguments: tuple[str, ...]) -> None:
    check_vllm_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--nonsense",), r"unrecognized arguments: --nonsense"),
        (("--max-num-seqs", "many"), r"argument --max-num-seqs: invalid int value: 'many'"),
        (("--max-num-seqs",), r"argument --max-num-seqs: expected one argument"),
        (("--compilation-config", "{"), r"argument --compilation-config/-cc: .*Invalid JSON"),
        (("--compilation-config.level",), "the last argument has no value"),
        (("--config", "missing.yaml"), r"No such file.*missing\.yaml"),
        (("--enable-log-outputs",), "requires --enable-log-requests"),
        (("--help",), "would print help and end"),
    ],
)
def test_arguments_that_vllm_refuses_are_bad_input_with_its_message(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^serving\.extra_args: are refused by vLLM: .*{problem}") as refused:
        check_vllm_arguments(arguments)
    assert "\n" not in str(refused.value)
    assert "`vllm serve`" in refused.value.remedy


@pytest.mark.parametrize(
    ("arguments", "destination"),
    [
        (("--ser", "other"), "served_model_name"),
        (("--trust-rem",), "trust_remote_code"),
        (("other/model",), "model_tag"),
        (("--max-num-seqs 8",), "model_tag"),
        (("--headless",), "headless"),
    ],
)
def test_no_spelling_sets_what_the_model_server_sets(arguments: tuple[str, ...], destination: str) -> None:
    with pytest.raises(ConfigError, match=rf"set {destination}, which is not allowed"):
        check_vllm_arguments(arguments)


def test_a_configuration_file_sets_nothing_that_the_model_server_sets(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text("port: 8001\n")
    with pytest.raises(ConfigError, match="set port, which is not allowed: the model server chooses a free one"):
        check_vllm_arguments(["--config", str(file)])
