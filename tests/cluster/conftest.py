"""A real cluster: the one that KUBECONFIG names; with the images that `make images` made on its nodes."""

import copy
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml
from real_cluster.pods import StandIn, standing_in
from real_cluster.release import Release, installed
from real_cluster.tools import until as wait

from surogate_bench_orchestrator.resource.definition import definition
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api
from surogate_bench_orchestrator.runtimes.kubernetes.connecting import connect

DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/recipesweeps.bench.surogate.ai"


@pytest.fixture(scope="session")
def api() -> Api:
    """The cluster's API."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    return Api(connect(None).client)


@pytest.fixture(scope="session")
def recipesweeps(api: Api) -> None:
    """The cluster knows RecipeSweeps as the models define them."""
    api.apply(DEFINITION, definition(), manager="surogate-bench-tests")
    wait(lambda: _is_established(api), "the definition is established")


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"surogate-bench-test-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait until something is true: ``until(condition, what, patience_s)``."""
    return wait


def _is_established(api: Api) -> bool:
    found = api.get(DEFINITION) or {}
    conditions = (found.get("status") or {}).get("conditions") or ()  # null in the first moment
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="session")
def release(api: Api) -> Iterator[Release]:
    """The chart as a user installs it."""
    with installed(api, f"surogate-bench-{secrets.token_hex(4)}") as made:
        yield made


@pytest.fixture(scope="module")
def install(api: Api) -> Iterator[Callable[..., Release]]:
    """Install the chart once more, until the module ends: ``install("trainer.image.tag=other", name="second")``."""
    with ExitStack() as made:
        yield lambda *changes, **options: made.enter_context(
            installed(api, f"surogate-bench-{secrets.token_hex(4)}", "orchestrator.replicas=1", *changes, **options)
        )


@pytest.fixture(scope="session")
def small() -> Callable[..., dict[str, Any]]:
    """A small sweep's spec, changed: ``small(recipes=["bf16"], training__max_steps=9)``."""

    def made(**changes: Any) -> dict[str, Any]:
        spec = copy.deepcopy(SMALL)
        for path, value in changes.items():
            *sections, last = path.split("__")
            target = spec
            for section in sections:
                target = target.setdefault(section, {})
            target[last] = value
        return spec

    return made


@pytest.fixture(scope="module")
def stand_in(api: Api) -> Iterator[Callable[..., StandIn]]:
    """Run a pod until the module's end: ``stand_in(namespace, name, labels, 8000, 8100)``."""
    with ExitStack() as made:
        yield lambda *arguments: made.enter_context(standing_in(api, *arguments))


@pytest.fixture(scope="session")
def enforced(api: Api) -> Iterator[None]:
    """The network plug-in enforces NetworkPolicies, as a try shows; skips where it does not."""
    name = f"surogate-bench-test-{secrets.token_hex(4)}"
    policies = f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"
    closed = {"metadata": {"name": "closed"}, "spec": {"podSelector": {"matchLabels": {"is": "closed"}}}}
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        with (
            standing_in(api, name, "closed", {"is": "closed"}, 8000) as target,
            standing_in(api, name, "other", {}) as other,
        ):
            wait(lambda: other.connects((target.ip, 8000))[0], "a pod reaches another")
            api.create(policies, closed)
            deadline = time.monotonic() + 20
            while other.connects((target.ip, 8000))[0]:
                if time.monotonic() > deadline:
                    pytest.skip("the cluster's network plug-in does not enforce NetworkPolicies")
        yield
    finally:
        api.delete(f"/api/v1/namespaces/{name}")


SMALL: dict[str, Any] = yaml.safe_load("""
model: {builtin: tiny-qwen3-en}
data:
  builtin: word-problems-ro
  train_size: 200
  test_size: 20
  validation_size: 10
  prompt: "Întrebare: {question}\\nRăspuns:"
training:
  max_steps: 60
  max_length: 512
  micro_batch_size: 2
  gradient_accumulation_steps: 1
  learning_rate: 4.0e-3
  eval_steps: 30
  checkpoint_steps: 10
recipes: [bf16, qfp8-bf16]
serving: {max_model_len: 512}
evaluation: {max_gen_toks: 64, evaluate_base: false}
""")
"""A sweep of a few minutes."""
