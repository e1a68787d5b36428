"""An exported folder is whole or absent."""

import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.export.folder import complete_folder

HALF_AN_EXPORT = """
import sys, time
from pathlib import Path
from surogate_bench_trainer.export.folder import complete_folder
with complete_folder(Path(sys.argv[1])) as folder:
    (folder / "config.json").write_text("{}")
    print("half", flush=True)
    time.sleep(3600)
"""


@contextmanager
def half_an_export(target: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that has written a part."""
    command = [sys.executable, "-c", HALF_AN_EXPORT, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_when_everything_is_written(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "deep" / "out") as folder:
        (folder / "config.json").write_text("{}")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["config.json"]


def write_to(target: Path, *, content: bytes = b"{}", failing: bool = False) -> None:
    with complete_folder(target) as folder:
        (folder / "config.json").write_bytes(content)
        if failing:
            raise KeyError


def write_tensor_to(target: Path) -> None:
    with complete_folder(target) as folder:
        safetensors.torch.save_file({"weight": torch.zeros(1 << 16)}, folder / "model.safetensors")


def write_while_another_export_finishes(target: Path) -> None:
    with complete_folder(target):
        write_to(target, content=b"first")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_to(tmp_path / "out", failing=True)
    assert names(tmp_path) == []


def test_a_killed_export_leaves_no_folder_of_that_name_and_the_next_one_clears_up(tmp_path: Path) -> None:
    with half_an_export(tmp_path / "out") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "out" not in names(tmp_path)
    assert len(names(tmp_path)) == 1
    write_to(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_what_a_live_export_has_written_is_not_cleared(tmp_path: Path) -> None:
    with half_an_export(tmp_path / "out"):
        before = names(tmp_path)
        with complete_folder(tmp_path / "out"):
            assert set(before) < set(names(tmp_path))
        assert set(before) < set(names(tmp_path))


def test_of_two_exports_to_one_folder_the_second_to_finish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        write_while_another_export_finishes(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "config.json").read_bytes() == b"first"


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """Refuse to let any file grow beyond 64 KiB, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("write", [lambda target: write_to(target, content=bytes(1 << 17)), write_tensor_to])
@pytest.mark.usefixtures("small_files_only")
def test_a_file_that_does_not_fit_is_bad_input_and_leaves_nothing(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    with pytest.raises(ConfigError, match=r"output: cannot be written: .*Free some space"):
        write(tmp_path / "out")
    assert names(tmp_path) == []
