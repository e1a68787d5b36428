"""A real Prometheus scrapes a real sweep, and its answers are those of the report."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest
import yaml
from real_cluster.release import Release, Small, Until

from surogate_bench.processes.metrics import METRICS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SWEEP, RECIPES, STEPS, QUESTIONS = "scraped", ["bf16", "qfp8-bf16"], 60, 1000
PRIMARY, FURTHER = "ro_gsm8k", "en_gsm8k"
SCORES = {"surogate_bench_accuracy": "accuracy", "surogate_bench_accuracy_stderr": "stderr"}
IMAGE = os.environ.get("SUROGATE_BENCH_PROMETHEUS_IMAGE", "docker.io/prom/prometheus:v3.5.0")
ORCHESTRATOR = f"surogate-bench/orchestrator:{os.environ.get('SUROGATE_BENCH_IMAGE_TAG', 'dev')}"
FOLDER = Path(__file__).with_name("prometheus")
PATHS = {
    "ServiceAccount": "api/v1", "ConfigMap": "api/v1", "Pod": "api/v1", "Role": "apis/rbac.authorization.k8s.io/v1",
    "RoleBinding": "apis/rbac.authorization.k8s.io/v1",
}  # fmt: skip
TARGET_LABELS = {"__name__", "job", "instance", "pod", "component"}
"""What the scrape adds."""

Series = tuple[dict[str, str], float]


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    url: str

    def query(self, expression: str) -> list[Series]:
        """Value of each series now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=20).raise_for_status()
        return [(each["metric"], float(each["value"][1])) for each in answer.json()["data"]["result"]]

    def by(self, label: str, expression: str) -> dict[str, float]:
        """Value of each series now, by one of its labels, which distinguishes them."""
        found = self.query(expression)
        values = {labels[label]: value for labels, value in found}
        assert len(values) == len(found), found
        return values

    def series(self, name: str) -> list[dict[str, str]]:
        """Labels of every series whose name matches."""
        match = {"match[]": f'{{__name__=~"{name}"}}'}
        answer = httpx.get(f"{self.url}/api/v1/series", params=match, timeout=20).raise_for_status()
        return list(answer.json()["data"])


@pytest.fixture(scope="module")
def prometheus(release: Release, until: Until) -> Iterator[Prometheus]:
    """A Prometheus in the release's namespace."""
    made = []
    for manifest in manifests(release.namespace):
        kind = manifest["kind"]
        made.append(f"/{PATHS[kind]}/namespaces/{release.namespace}/{kind.lower()}s/prometheus")
        release.api.apply(made[-1], manifest, manager="surogate-bench-tests")
    until(lambda: is_ready(release.api.get(made[-1])), "Prometheus is ready", 120)
    with release.forward("pod/prometheus", 9090) as port:
        yield Prometheus(f"http://127.0.0.1:{port}")
    for path in made:
        release.api.delete(path)


def manifests(namespace: str) -> Iterator[dict[str, Any]]:
    discover = json.dumps((FOLDER / "discover.py").read_text(encoding="utf-8"))
    template = Template((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    filled = template.substitute(NAMESPACE=namespace, IMAGE=IMAGE, ORCHESTRATOR=ORCHESTRATOR, DISCOVER=discover)
    yield from yaml.safe_load_all(filled)


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)


@pytest.fixture(scope="module")
def summary(
    release: Release, prometheus: Prometheus, until: Until, small: Small, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The report of a sweep that ran while Prometheus scraped."""
    until(lambda: len(prometheus.query("surogate_bench_leader")) == 2, "Prometheus scrapes both controllers")
    further = {"name": FURTHER, "data": {"builtin": "word-problems-en", "test_size": 8}}
    spec = small(
        recipes=RECIPES, training__max_steps=STEPS, data__test_size=QUESTIONS, data__validation_size=1000,
        evaluation__tasks=[{"name": "ro_gsm8k"}, further],
    )  # fmt: skip
    release.submit(
        SWEEP, spec
    )  # validation after the last step, and questions, take so long that a scrape observes them
    until(lambda: release.finished(SWEEP), "the sweep is over", 400)
    folder = tmp_path_factory.mktemp("report")
    done = release.cli("report", SWEEP, "--output", str(folder))
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [row["state"] for row in found["rows"]] == ["succeeded"] * len(RECIPES)
    until(lambda: len(prometheus.query(f'surogate_bench_accuracy{{sweep="{SWEEP}"}}')) == len(RECIPES), "accuracies")
    return found


def over(name: str, function: str = "max_over_time", **labels: str) -> str:
    """Make an expression for what a metric of the sweep was while it ran."""
    selector = ",".join(f'{label}="{value}"' for label, value in {"sweep": SWEEP, **labels}.items())
    return f"{function}(surogate_bench_{name}{{{selector}}}[30m])"


@pytest.mark.usefixtures("summary")
def test_training_shows_how_far_it_is_how_well_and_how_fast(prometheus: Prometheus) -> None:
    at_most = {
        name: prometheus.by("recipe", over(name, component="trainer"))
        for name in ("train_step", "train_loss", "train_learning_rate", "train_tokens_per_second", "train_memory_bytes")
    }
    assert all(set(values) == set(RECIPES) for values in at_most.values()), at_most
    steps = at_most["train_step"]
    assert all(STEPS / 3 < step <= STEPS for step in steps.values()), steps  # scrapes are seconds apart
    assert prometheus.by("recipe", over("train_steps")) == dict.fromkeys(RECIPES, STEPS)
    assert all(0 < rate <= 4e-3 for rate in at_most["train_learning_rate"].values())
    assert all(speed > 100 for speed in at_most["train_tokens_per_second"].values())
    assert all(memory > 1e8 for memory in at_most["train_memory_bytes"].values())
    least = prometheus.by("recipe", over("train_loss", "min_over_time"))
    assert all(0 < least[recipe] < at_most["train_loss"][recipe] < 20 for recipe in RECIPES)


@pytest.mark.usefixtures("summary")
def test_evaluation_shows_how_far_it_is(prometheus: Prometheus) -> None:
    runs = [f"{recipe}-s0" for recipe in RECIPES]
    assert prometheus.by("run", over("eval_requests", task=PRIMARY)) == dict.fromkeys(runs, QUESTIONS)
    done = prometheus.by("run", over("eval_requests_done", task=PRIMARY))
    assert set(done) == set(runs)
    assert all(0 < number <= QUESTIONS for number in done.values()), done
    tasks = {labels["task"] for labels, _ in prometheus.query(over("eval_phase"))}
    assert {PRIMARY} <= tasks <= {PRIMARY, FURTHER}  # the few questions of the further one may end between two scrapes
    assert set(prometheus.by("phase", f"max by (phase) ({over('eval_phase')})")) >= {"starting", "evaluating"}


@pytest.mark.usefixtures("summary")
def test_the_server_shows_its_adapters_and_what_vllm_says_itself(prometheus: Prometheus) -> None:
    ((_, up),) = prometheus.query(over("vllm_up"))
    ((_, adapters),) = prometheus.query(over("adapters_loaded"))
    ((_, restarts),) = prometheus.query(over("vllm_restarts_total"))
    assert (up, adapters, restarts) == (1, len(RECIPES), 0)
    answered = prometheus.query('sum(max_over_time({__name__="vllm:request_success_total",job="annotated"}[30m]))')
    assert answered[0][1] >= len(RECIPES) * QUESTIONS


@pytest.mark.usefixtures("summary", "enforced")
def test_ports_of_vllm_are_closed_even_to_prometheus(prometheus: Prometheus) -> None:
    tried = prometheus.query('max_over_time(up{job="closed"}[30m])')
    assert [value for _, value in tried] == [0, 0]


def test_the_controllers_scores_are_those_of_the_report(prometheus: Prometheus, summary: dict[str, Any]) -> None:
    check_scores(prometheus, summary)
    assert prometheus.query(f'surogate_bench_runs{{sweep="{SWEEP}",state="Succeeded"}}')[0][1] == len(RECIPES)


def test_scores_are_there_again_after_the_controllers_were_deleted(
    release: Release, prometheus: Prometheus, summary: dict[str, Any], until: Until
) -> None:
    before = {pod["metadata"]["name"] for pod in release.controllers()}
    for pod in before:
        release.api.delete(f"{release.core}/pods/{pod}")
    expression = f'surogate_bench_accuracy{{sweep="{SWEEP}",pod!~"{"|".join(before)}"}}'
    until(lambda: len(prometheus.query(expression)) == len(RECIPES), "accuracies from another controller", 120)
    check_scores(prometheus, summary, f'pod!~"{"|".join(before)}"')


def check_scores(prometheus: Prometheus, summary: dict[str, Any], more: str = "") -> None:
    """Compare what the controller shows with the report."""
    names = {**SCORES, "surogate_bench_eval_samples": "samples"}
    for name, field in names.items():
        expected = {row["recipe"]: pytest.approx(row["score"][field], rel=1e-12) for row in summary["rows"]}
        assert prometheus.by("recipe", f'{name}{{sweep="{SWEEP}",{more}}}') == expected


@pytest.mark.usefixtures("summary")
def test_series_have_no_labels_but_those_of_the_documented_table(prometheus: Prometheus) -> None:
    documented = {info.name: {*info.labels} for info in METRICS}
    seen = set()
    for labels in prometheus.series("surogate_bench_.+"):
        name = next((name for name in candidates(labels["__name__"]) if name in documented), "")
        assert name, labels
        own = {*labels} - TARGET_LABELS - {"le"}
        assert own <= documented[name]
        assert documented[name] - own <= {"seed"}  # empty for the base model, and Prometheus drops what is empty
        seen.add(name)
    of_several_ways = {
        name for name in documented if name.startswith("surogate_bench_served_")
    }  # other sweeps may have them
    assert seen | of_several_ways == set(documented)


def candidates(series: str) -> list[str]:
    """Metrics that a series may be of: a histogram has three series, and each counter says when it began."""
    parts = ("_bucket", "_sum", "_count", "_created")
    shorter = [series.removesuffix(part) for part in parts if series.endswith(part)]
    return [series, *shorter, *(f"{each}_total" for each in shorter)]
