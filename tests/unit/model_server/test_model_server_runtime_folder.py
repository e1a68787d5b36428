"""Sockets of vLLM have short paths, whatever TMPDIR is, in a folder that goes with it."""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from surogate_bench.errors import PermanentError
from surogate_bench_model_server.vllm import runtime_folder
from surogate_bench_model_server.vllm.command import Command
from surogate_bench_model_server.vllm.process import start_vllm
from surogate_bench_model_server.vllm.runtime_folder import make_runtime_folder, runtime_environment

BIND = """
import multiprocessing.connection, os, socket, tempfile, uuid
places = [os.path.join(os.environ["VLLM_RPC_BASE_PATH"], str(uuid.uuid4()))]
places.append(os.path.join(tempfile.gettempdir(), "torch-shm-dir-abcdef-manager.sock"))
for place in places:
    socket.socket(socket.AF_UNIX).bind(place)
multiprocessing.connection.Listener(family="AF_UNIX").close()
print(os.environ["VLLM_RPC_BASE_PATH"])
"""


@pytest.fixture(params=[1, 60, 100, 200], ids="TMPDIR has {0} characters more".format)
def temporary(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ("é" * (request.param // 2) + "x")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.usefixtures("temporary")
def test_vllm_and_its_libraries_can_make_sockets_under_any_tmpdir(tmp_path: Path) -> None:
    command = Command(arguments=[sys.executable, "-c", BIND], environment=dict(os.environ))
    process = start_vllm(command, tmp_path)
    while process.exit_code() is None:
        asyncio.run(asyncio.sleep(0.02))
    said = process.log.read_text()
    assert process.exit_code() == 0, said
    assert not Path(said.strip()).exists(), "the launcher removes it"


def test_a_long_tmpdir_stays_in_use_through_a_link(temporary: Path) -> None:
    folder = make_runtime_folder()
    try:
        environment = runtime_environment(folder)
        assert Path(environment.get("TMPDIR", str(temporary))).resolve() == temporary.resolve()
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(folder)
    assert temporary.exists(), "the link was removed, not what it names"


def test_servers_side_by_side_have_folders_of_their_own(tmp_path: Path) -> None:
    command = Command(arguments=[sys.executable, "-c", "import time; time.sleep(3600)"], environment=dict(os.environ))
    processes = [start_vllm(command, folder) for folder in (tmp_path / "a", tmp_path / "b") if not folder.mkdir()]
    first, second = (process.runtime for process in processes)
    asyncio.run(processes[0].stop())
    assert (first.exists(), second.exists()) == (False, True)
    asyncio.run(processes[1].stop())
    assert not second.exists()


def test_where_no_short_folder_can_be_written_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(runtime_folder, "_SHORT_FOLDERS", ("/proc",))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(PermanentError, match=r"vLLM's sockets .* Set TMPDIR to a folder .* of at most \d+ characters"):
        make_runtime_folder()


def test_the_longest_name_fits_where_a_folder_is_made() -> None:
    folder = make_runtime_folder()
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(folder / ("s" * 47)))
    finally:
        shutil.rmtree(folder)
