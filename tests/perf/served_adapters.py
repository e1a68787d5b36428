"""What scripts share that time how adapters are scored: a store with random adapters, a model server, evaluators."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from model_servers import free_port, model_server

from surogate_bench.contract import DATA_FOLDER, split_file
from surogate_bench.results import EvalResult
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.model_source import locate_model
from surogate_bench.stages.publication import publish_stage, read_result
from surogate_bench.stages.requests import EvaluateRequest, ServeRequest
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_trainer.embedded.word_problems import split


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that the ways of scoring share."""

    folder: Path
    sweep: RecipeSweep
    store: ObjectStore
    request: ServeRequest
    model: str
    """Folder of the base model."""
    adapters: tuple[Path, ...]
    """Folders of adapters, as PEFT saves them."""

    @classmethod
    def make(cls, sweep: RecipeSweep, folder: Path, *, adapters: int, stddev: float = 0.02) -> Self:
        """Make random adapters and an empty store below ``folder``.

        Args:
            sweep: What is served and scored.
            folder: Gets everything that is written.
            adapters: Number of adapters.
            stddev: Of their matrices B. With the default, answers have the length of the base model's.
        """
        store = open_store(str(folder / "store"))
        request = ServeRequest(sweep=sweep, store=store.url, port=free_port(), vllm_port=free_port())
        model = locate_model(sweep.model, store=store, layout=request.layout, cache=folder / "models").name_or_path
        made = tuple(make_adapter(model, folder / f"adapter-{seed}", seed, stddev) for seed in range(adapters))
        return cls(folder, sweep, store, request, model, made)

    @property
    def data(self) -> Path:
        """Folder of the published test records."""
        return self.folder / "prepared" / DATA_FOLDER

    def publish_problems(self, *, language: Literal["ro", "en"], size: int, file: str = split_file("test")) -> None:
        """Write generated test records and publish them as the trainer service would have."""
        self.data.mkdir(parents=True)
        problems = split("test", language=language, size=size)
        records = [json.dumps({"question": each.question, "answer": each.answer}) + "\n" for each in problems]
        (self.data / file).write_text("".join(records), encoding="utf-8")
        self._publish("prepare", "", self.request.layout.prepare, self.data.parent)

    def publish_adapter(self, run: str, adapter: Path) -> None:
        """Publish an adapter as that of a training run."""
        stage = self.folder / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        shutil.copytree(adapter, stage / "adapter")
        self._publish("train", run, self.request.layout.train(run), stage)

    def _publish(self, stage: str, run: str, prefix: str, folder: Path) -> None:
        prepared = {"data": {}, "model_source": self.sweep.model.label, "model_in_store": False}
        manifest = Manifest.model_validate({
            "stage": stage, "run": run, "spec_hash": self.sweep.spec_hash, "created": datetime.now(UTC), "files": {},
            "hardware": {}, "versions": {}, "result": prepared if stage == "prepare" else {},
        })  # fmt: skip
        publish_stage(self.store, prefix, folder, manifest)

    def start_evaluator(self, run: str, *, task: str | None = None) -> "subprocess.Popen[bytes]":
        """Start the evaluator service for one run, on the primary task or on a further one."""
        work_dir = self.folder / run
        work_dir.mkdir()
        server = f"http://127.0.0.1:{self.request.port}"
        request = EvaluateRequest(sweep=self.sweep, store=self.store.url, run=run, server_url=server, task=task)
        path = work_dir / "request.json"
        path.write_text(request.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "surogate_bench_evaluator", str(path), "--work-dir", str(work_dir)]
        with (work_dir / "log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def result(self, run: str, *, task: str | None = None) -> EvalResult:
        """Read what the evaluator has published, or show why there is nothing."""
        found = read_result(self.store, self.request.layout.eval(run, task=task), EvalResult)
        if found is None:
            raise SystemExit((self.folder / run / "log").read_text(encoding="utf-8")[-4000:])
        return found

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the model-server service until the block ends."""
        with model_server(self.request, self.folder / "s"):
            yield


def make_adapter(model_path: str, folder: Path, seed: int, stddev: float) -> Path:
    """Save a random LoRA adapter of rank 16 to ``folder``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=stddev)
    model.save_pretrained(folder)
    return folder
