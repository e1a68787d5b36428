"""What may be said in values, and what is answered when it is wrong."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_rendering import CHART, Render
from waiting import PATIENCE_S

FREE_MAPS = {"stringMap", "env", "quantities", "global"}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"orchestrator": {"replica": 3}}, "replica"),
        ({"orchestrator": {"replicas": 0}}, "/orchestrator/replicas"),
        ({"trainer": {"gpus": -1}}, "/trainer/gpus"),
        ({"trainer": {"image": {"repository": ""}}}, "/trainer/image/repository"),
        ({"trainer": {"resources": {"requests": {"memory": "lots"}}}}, "/trainer/resources/requests/memory"),
        ({"modelServer": {"env": {"not a name": "x"}}}, "not a name"),
        ({"scheduling": {"computeCapability": "maybe"}}, "/scheduling/computeCapability"),
        ({"scheduling": {"tolerations": [{"keys": "x"}]}}, "keys"),
        ({"tasks": {"ttlSecondsAfterFinished": 5}}, "/tasks/ttlSecondsAfterFinished"),
        ({"objectStore": {"bundled": {"metadata": "none"}}}, "/objectStore/bundled/metadata"),
        ({"objectStore": {"bundled": {"bucket": "Not_A_Bucket"}}}, "/objectStore/bundled/bucket"),
        ({"objectStore": {"external": {"url": "ftp://x"}}}, "/objectStore/external/url"),
        ({"networkPolicy": {"apiServer": {"cidrs": ["anywhere"]}}}, "/networkPolicy/apiServer/cidrs/0"),
        ({"objectStore": {"bundled": {"runAsUser": 0}}}, "/objectStore/bundled/runAsUser"),
        ({"metrics": {"scrapeFrom": [{}]}}, "/metrics/scrapeFrom/0"),
        ({"image": {"tag": "dev"}}, "image"),
    ],
)
def test_a_wrong_value_is_refused_by_name(render: Render, values: dict[str, Any], named: str) -> None:
    with pytest.raises(Exception, match="values don't meet the specifications") as refused:
        render(values)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("store", "named", "remedy"),
    [
        ({"bundled": {"enabled": False}}, "objectStore.external.url", "objectStore.bundled.enabled=true"),
        ({"external": {"url": "s3://a/b"}}, "objectStore.external.url", "objectStore.bundled.enabled=false"),
        (
            {"bundled": {"enabled": False}, "external": {"url": "s3://a", "env": {"AWS_SECRET_ACCESS_KEY": "hush"}}},
            "objectStore.external.env.AWS_SECRET_ACCESS_KEY",
            "objectStore.external.existingSecret",
        ),
    ],
)
def test_exactly_one_store_is_asked_for(render: Render, store: dict[str, Any], named: str, remedy: str) -> None:
    with pytest.raises(Exception, match=named) as refused:
        render({"objectStore": store})
    assert remedy in str(refused.value)
    assert "hush" not in str(refused.value)


def _objects(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" or "properties" in schema:
            yield where, schema
        for key, value in schema.items():
            yield from _objects(value, key)
    elif isinstance(schema, list):
        for value in schema:
            yield from _objects(value, where)


def test_the_schema_is_closed_everywhere_but_in_free_maps() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    open_ones = [
        where
        for where, part in _objects(schema)
        if part.get("additionalProperties") is not False and where not in {*FREE_MAPS, "properties"}
    ]
    assert open_ones == []


def test_the_schema_knows_exactly_the_values_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    def compare(part: dict[str, Any], value: Any, where: str) -> Iterator[str]:
        while "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
        if part.get("type") != "object" or part.get("additionalProperties") is not False or "minProperties" in part:
            return
        known, given = set(part["properties"]) - {"global"}, set(value)
        yield from (f"{where}.{name}" for name in known ^ given)
        for name in known & given:
            yield from compare(part["properties"][name], value[name], f"{where}.{name}")

    assert list(compare(schema, values, "")) == []


def test_every_value_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    top_level = [number for number, line in enumerate(lines) if line and line[0].isalpha()]
    assert top_level
    assert [lines[number] for number in top_level if not lines[number - 1].startswith("#")] == []


def test_helm_lint_finds_nothing() -> None:
    helm_python = pytest.importorskip("helm_python")
    from helm_python.chart import lint

    report = lint(str(CHART), {}, strict=True, kube_version="v1.35.0")
    assert helm_python.__version__
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_the_scripts_of_the_chart_are_python() -> None:
    for script in sorted((CHART / "files").glob("*.py")):
        compile(script.read_text(encoding="utf-8"), script.name, "exec")


AS_USER = """
import os, pathlib, sys, tempfile
if os.getuid() == 0:
    os.setgroups([]), os.setgid(12345), os.setuid(12345)
exec(sys.argv.pop(1))
"""
"""Runs a script as a user who may not write everywhere; modules are imported before, as root's may be closed to it."""


def bucket_script(render: Render, folder: Path, **bundled: Any) -> tuple[list[str], dict[str, Any]]:
    """The command that makes the bucket below a folder in place of the volume, and the store's pod."""
    store = render({"objectStore": {"bundled": {"bucket": "results", **bundled}}}).one("Deployment", "object-store")
    pod = store["spec"]["template"]["spec"]
    script, *arguments = pod["initContainers"][0]["args"]
    here = [re.sub("^/data", str(folder), argument) for argument in arguments]
    return [sys.executable, "-P", "-c", script, *here], pod


def test_the_bucket_is_created_where_the_server_expects_it(render: Render, tmp_path: Path) -> None:
    command, pod = bucket_script(render, tmp_path)
    for _ in range(2):
        subprocess.run(command, check=True, timeout=PATIENCE_S)
    root = pod["containers"][0]["args"][-1].replace("/data", str(tmp_path), 1)
    assert (Path(root) / "results").is_dir()
    assert "--nometa" not in pod["containers"][0]["args"]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_volume_that_may_not_be_written_is_refused_with_its_owner_and_every_way_out(
    render: Render, prepared: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:  # a test's own folder is closed to other users
        folder = Path(name)
        command, _ = bucket_script(render, folder)
        as_user = [*command[:3], AS_USER, *command[3:]]
        if prepared:
            subprocess.run(command, check=True, timeout=PATIENCE_S)
        for each in (*folder.rglob("*"), folder):
            each.chmod(0o555)
        done = subprocess.run(as_user, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        folder.chmod(0o755)
    assert done.returncode == 1
    assert f"belongs to {os.getuid()}:{os.getgid()}, mode 0555" in done.stderr
    assert "PersistentVolumeClaim demo-surogate-bench-object-store" in done.stderr
    for way in ("persistence.storageClass", "make the volume writable", "persistence.enabled=false"):
        assert way in done.stderr
    assert ("runAsUser=" in done.stderr) == bool(os.getuid() and os.getgid())
    assert len(done.stderr) < 700  # else the status shows its end only


def test_a_volume_that_cannot_be_used_is_refused_with_the_reason(render: Render, tmp_path: Path) -> None:
    (tmp_path / "buckets").write_text("in the way")
    command, _ = bucket_script(render, tmp_path, persistence={"enabled": False})
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"the pod's emptyDir cannot be used: {tmp_path}/buckets")


def test_the_bundled_store_can_run_as_the_owner_of_its_volume(render: Render) -> None:
    def users(**bundled: Any) -> list[int]:
        _, pod = bucket_script(render, Path("/data"), **bundled)
        return [pod["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")]

    assert users() == [10001, 10001, 10001]
    assert users(runAsUser=1000, runAsGroup=2000) == [1000, 2000, 2000]
