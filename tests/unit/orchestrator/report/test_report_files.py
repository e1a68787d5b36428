"""The files of a report: they agree with one another, are safe to open, and repeat byte for byte."""

import base64
import hashlib
import json
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from html.parser import HTMLParser

import pytest
import yaml
from worlds.report import MakeWorld, ReportWorld, failures_of

from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.report import build_report, write_report

HOSTILE = '$x_{1}$ <script>alert(1)</script> "quoted" & [link](https://example.org) | *bold*'
RECIPES = ["bf16", "fp8", "fp4", "qbnb", "qfp8-fp8-hybrid", "qfp8-bf16", "qfp4"]


def write(world: ReportWorld, failures: dict[str, str] | None = None) -> None:
    write_report(world.store, build_report(world.store, world.sweep, failures_of(failures or {})))


def test_a_report_reads_every_file_of_a_stage_once(report_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = report_world(seeds=[0, 1])
    world.publish_everything()
    reads = Counter[str]()
    get = ObjectStore.get

    def counted(store: ObjectStore, key: str) -> bytes | None:
        reads[key] += 1
        return get(store, key)

    monkeypatch.setattr(ObjectStore, "get", counted)
    write(world)
    stages = {key: number for key, number in reads.items() if not key.startswith(world.layout.report)}
    assert sum(key.endswith("/samples.jsonl") for key in stages) == 15
    assert sum(key.endswith("/metrics.jsonl") for key in stages) == 14
    assert set(stages.values()) == {1}


def report_files(world: ReportWorld) -> dict[str, bytes]:
    return {info.key: world.store.get(info.key) for info in world.store.list(world.layout.report)}


def markdown_rows(world: ReportWorld) -> list[list[str]]:
    lines = world.report_file("summary.md").decode().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| Precision / Config |"))
    table = lines[start : lines.index("", start)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and raw scan lines; every chunk's checksum verified."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    position, data, size = 8, b"", (0, 0)
    while position < len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        body = png[position + 8 : position + 8 + length]
        assert struct.unpack(">I", png[position + 8 + length : position + 12 + length])[0] == zlib.crc32(kind + body)
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        data += body if kind == b"IDAT" else b""
        position += 12 + length
    return size[0], size[1], zlib.decompress(data)


class Page(HTMLParser):
    """Tags, addresses and visible text of a page."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_json_csv_and_markdown_show_the_same(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8", "fp4"])
    world.publish_everything()
    write(world)
    document = json.loads(world.report_file("summary.json"))
    table = world.csv_lines("summary.csv")
    header, _, *shown = markdown_rows(world)
    assert header[:3] == ["Precision / Config", "accuracy", "Stderr"]
    assert len(document["rows"]) == len(table) == len(shown) == 4
    for row, cells, texts in zip(document["rows"], table, shown, strict=True):
        right = world.outcomes["base" if row["recipe"] is None else f"{row['recipe']}-s0"]
        assert row["score"]["accuracy"] == float(cells["accuracy"]) == pytest.approx(sum(right) / len(right))
        assert float(cells["stderr"]) == row["score"]["stderr"]
        assert texts[:3] == [row["title"], f"{float(cells['accuracy']):.4f}", f"{float(cells['stderr']):.4f}"]
        if row["versus_reference"]:
            assert float(cells["delta_reference"]) == row["versus_reference"]["delta"]
            assert f"{abs(row['versus_reference']['delta']):.4f}" in texts[4]


def test_the_first_columns_of_the_markdown_are_those_of_the_published_table(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    write(world)
    lines = world.report_file("summary.md").decode().splitlines()
    assert any(line.startswith("| Precision / Config | accuracy | Stderr |") for line in lines)
    assert any(re.match(r"\| BF16 \| 0\.\d{4} \| 0\.\d{4} \|", line) for line in lines)


def test_a_failed_run_stands_in_every_file_with_its_reason(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_run("bf16")
    write(world, {"fp4-s0": "the model server ran out of memory"})
    for name in ("summary.json", "summary.csv", "summary.md", "report.html"):
        assert "the model server ran out of memory" in world.report_file(name).decode(), name


def test_every_recipe_has_a_loss_chart_and_all_share_an_overlay(report_world: MakeWorld) -> None:
    world = report_world()
    world.publish_everything()
    write(world)
    for name in ("accuracy", "overlay", *(f"loss-{recipe}" for recipe in RECIPES)):
        width, height, scan_lines = pixels(world.report_file(f"charts/{name}.png"))
        assert width >= 900
        assert height >= 500
        assert len(set(scan_lines)) > 50
        assert world.report_file(f"charts/{name}.svg").startswith(b"<svg")


def test_charts_follow_the_losses(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_everything()
    write(world)
    bf16, fp8 = (world.report_file(f"charts/loss-{recipe}.png") for recipe in ("bf16", "fp8"))
    assert pixels(bf16)[2] != pixels(fp8)[2]
    drawing = world.report_file("charts/loss-fp8.svg").decode()
    for text in ("FP8: loss", "optimizer step", "loss (nats/token)", "moving average, 21 steps", "validation"):
        assert text in drawing


def test_a_run_without_kept_losses_has_no_chart_and_stops_nothing(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_run("bf16")
    world.publish_train("fp8", metrics=False)
    world.publish_eval("fp8-s0")
    write(world)
    names = {key.rsplit("/", 1)[1] for key in report_files(world)}
    assert "loss-bf16.png" in names
    assert "loss-fp8.png" not in names
    assert "FP8" in world.report_file("report.html").decode()


def test_no_finished_run_gives_a_report_without_charts(report_world: MakeWorld) -> None:
    world = report_world()
    write(world)
    assert not [key for key in report_files(world) if "/charts/" in key]
    assert "not trained yet" in world.report_file("report.html").decode()


def test_a_diverged_run_is_drawn_as_far_as_it_went(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_train("bf16", steps=60)
    key = f"{world.layout.train('bf16-s0')}/metrics.jsonl"
    lines = world.store.get(key).splitlines()
    lines[40:] = [re.sub(rb'"(eval_)?loss":[0-9.e-]+', rb'"\1loss":NaN', line) for line in lines[40:]]
    replace_file(world, "bf16-s0", "metrics.jsonl", b"\n".join(lines) + b"\n")
    write(world)
    assert pixels(world.report_file("charts/loss-bf16.png"))


def replace_file(world: ReportWorld, run: str, name: str, data: bytes) -> None:
    """Replace a training output as if the stage had left it so."""
    prefix = world.layout.train(run)
    manifest = json.loads(world.store.get(f"{prefix}/manifest.json"))
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    world.store.put(f"{prefix}/{name}", data)
    world.store.put(f"{prefix}/manifest.json", json.dumps(manifest).encode())


def test_the_page_needs_nothing_from_outside_and_runs_no_script(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_everything()
    write(world)
    page = Page(world.report_file("report.html").decode())
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    for address in page.addresses:
        drawing = base64.b64decode(address.partition(",")[2]).decode()
        beyond_names = re.sub(r'xmlns(:xlink)?="[^"]*"', "", drawing)
        assert "http" not in beyond_names
    assert "http" not in re.sub(r'"data:[^"]*"', "", world.report_file("report.html").decode()).replace(
        "http-equiv", ""
    )


def test_hostile_texts_are_shown_and_not_obeyed(report_world: MakeWorld) -> None:
    recipe = {"name": "evil", "title": HOSTILE, "weight_storage": "nf4", "compute": "bf16"}
    world = report_world(description=HOSTILE, recipes=["bf16", recipe, "fp8"])
    world.publish_run("bf16")
    world.publish_run("evil")
    write(world, {"fp8-s0": HOSTILE, "base": "=HYPERLINK(1)"})
    document = world.report_file("report.html").decode()
    page = Page(document)
    assert "script" not in page.tags
    assert "a" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 3
    drawing = world.report_file("charts/loss-evil.svg").decode()
    assert "<script" not in drawing
    assert "$x_{1}$" in drawing
    markdown = world.report_file("summary.md").decode()
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(https", markdown)
    assert {len(row) for row in markdown_rows(world)} == {11}
    reasons = [row["reason"] for row in world.csv_lines("summary.csv")]
    assert reasons[0] == "'=HYPERLINK(1)"


def test_the_same_store_gives_the_same_bytes_in_another_process(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp4"], seeds=[0, 1])
    world.publish_everything()
    write(world)
    first = report_files(world)
    script = (
        "import sys, yaml\n"
        "from surogate_bench.specs.yaml_io import parse_sweep\n"
        "from surogate_bench.store.object_store import open_store\n"
        "from surogate_bench_orchestrator.report import build_report, write_report\n"
        "store, sweep = open_store(sys.argv[1]), parse_sweep(yaml.safe_load(sys.stdin))\n"
        "write_report(store, build_report(store, sweep, {}), force=True)"
    )
    spec = world.report_file("sweep.yaml").decode()
    world.store.delete([key for key in first if not key.endswith("summary.json")])
    subprocess.run([sys.executable, "-c", script, world.store.url], input=spec, text=True, check=True)
    second = report_files(world)
    assert second.keys() == first.keys()
    assert [key for key in first if first[key] != second[key]] == []


def test_a_complete_report_is_left_alone(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"])
    world.publish_everything()
    write(world)
    world.store.put(f"{world.layout.report}/report.html", b"left alone")
    write(world)
    assert world.report_file("report.html") == b"left alone"


def test_new_results_replace_a_report(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16", "fp8"])
    world.publish_run("bf16")
    write(world)
    world.publish_run("fp8")
    write(world)
    assert markdown_rows(world)[-1][1] == f"{sum(world.outcomes['fp8-s0']) / 500:.4f}"


def test_the_ends_of_epochs_are_marked(report_world: MakeWorld) -> None:
    world = report_world(recipes=["bf16"], training={"epochs": 2})
    world.publish_everything()
    write(world)
    drawing = world.report_file("charts/loss-bf16.svg").decode()
    assert "epoch 1 ends" in drawing
    assert "epoch 2 ends" not in drawing


def test_the_published_specification_gives_the_same_experiment(report_world: MakeWorld) -> None:
    world = report_world(
        recipes=["bf16", {"name": "mine", "title": "Mine", "weight_storage": "nvfp4", "compute": "fp8-hybrid"}],
        training={"epochs": 2},
    )
    write(world)
    again = parse_sweep(yaml.safe_load(world.report_file("sweep.yaml")))
    assert again.spec_hash == world.sweep.spec_hash
    assert world.report_file("sweep.yaml").decode() in Page(world.report_file("report.html").decode()).text


def test_importing_the_report_loads_neither_matplotlib_nor_jinja() -> None:
    script = (
        "import sys, surogate_bench_orchestrator.report\n"
        "print([name for name in ('matplotlib', 'jinja2', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
