"""``surogate-bench init``: its options. What the specs describe has their description as its help."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from surogate_bench_orchestrator.cli.commands.init.answers import DEFAULT_FILE, STANDARD_OUTPUT, InitOptions
from surogate_bench_orchestrator.cli.commands.init.parsing import listed, number, numbers, pairs, settings
from surogate_bench_orchestrator.cli.commands.init.text import described
from surogate_bench_orchestrator.cli.terminal.consoles import standard_consoles

Texts = list[str] | None


def _option(flag: str, path: str, *, default: str) -> typer.models.OptionInfo:
    """Make the option of a setting."""
    option: typer.models.OptionInfo = typer.Option(flag, help=described(path), show_default=default)
    return option


def init(  # noqa: PLR0913 - an option each
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; - for standard output.")] = (
        DEFAULT_FILE
    ),
    *,
    model: Annotated[
        str | None,
        typer.Option(help="A name on the hub, a folder, or built in, such as tiny-qwen3-en.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A name on the hub, a file or folder, or built in: word-problems-ro.", show_default=False),
    ] = None,
    data_config: Annotated[str | None, _option("--data-config", "data.config", default="none")] = None,
    data_format: Annotated[str | None, _option("--format", "data.format", default="auto")] = None,
    field: Annotated[
        Texts, typer.Option(help="ROLE=NAME, such as question=Q: a field with another name.", show_default=False)
    ] = None,
    split: Annotated[
        Texts, typer.Option(help="SPLIT=NAME, such as test=test_sft: a split on the hub.", show_default=False)
    ] = None,
    task: Annotated[
        Texts,
        typer.Option(
            help="A task, the primary one first; NAME=DATA scores a further one on data.", show_default="GSM8K"
        ),
    ] = None,
    recipe: Annotated[
        Texts, typer.Option(help="A recipe, by name or file; may be repeated.", show_default="all built-in recipes")
    ] = None,
    seed: Annotated[Texts, typer.Option(help="A seed; may be repeated.", show_default="0 and 1")] = None,
    under: Annotated[
        Texts,
        typer.Option(help="A way of serving: bf16, own, all, or a recipe's name.", show_default="bf16 and own"),
    ] = None,
    epochs: Annotated[str | None, _option("--epochs", "training.epochs", default="2")] = None,
    learning_rate: Annotated[str | None, _option("--learning-rate", "training.learning_rate", default="0.0002")] = None,
    micro_batch_size: Annotated[
        str | None, _option("--micro-batch-size", "training.micro_batch_size", default="2")
    ] = None,
    accumulation: Annotated[
        str | None, _option("--accumulation", "training.gradient_accumulation_steps", default="4")
    ] = None,
    rank: Annotated[str | None, _option("--rank", "training.lora.r", default="16")] = None,
    alpha: Annotated[str | None, _option("--alpha", "training.lora.alpha", default="twice the rank")] = None,
    target: Annotated[
        Texts, typer.Option(help="A layer that gets an adapter; may be repeated.", show_default="the layers of Llama")
    ] = None,
    other: Annotated[
        Texts,
        typer.Option("--set", help="Any other SETTING=VALUE, such as training.warmup_steps=5.", show_default=False),
    ] = None,
    name: Annotated[str | None, _option("--name", "name", default="of FILE, or of model and data")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing and use the defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    to_stdout: Annotated[bool, typer.Option("--stdout", help="Print the sweep instead of writing FILE.")] = False,
) -> None:
    """Write a commented sweep file. On a terminal, ask for what the options do not give.

    Only model and data have no default.
    """
    from surogate_bench_orchestrator.cli.commands.init.command import write_sweep_file  # noqa: PLC0415 - start-up time
    from surogate_bench_orchestrator.cli.commands.init.sources import recipes_from  # noqa: PLC0415

    folder = Path.cwd() if to_stdout or file == STANDARD_OUTPUT else file.parent
    single: dict[str, str | None] = {
        "name": name, "data.config": data_config, "data.format": data_format,
    }  # fmt: skip
    numeric: dict[str, str | None] = {
        "training.epochs": epochs, "training.learning_rate": learning_rate,
        "training.micro_batch_size": micro_batch_size, "training.gradient_accumulation_steps": accumulation,
        "training.lora.r": rank, "training.lora.alpha": alpha,
    }  # fmt: skip
    lists: dict[str, object] = {
        "recipes": recipes_from(_entries(recipe), folder), "seeds": numbers(_entries(seed)),
        "serving.under": _entries(under), "training.lora.target_modules": target or [],
    }  # fmt: skip
    given: dict[str, object] = {path: value for path, value in single.items() if value is not None}
    given |= {path: number(value) for path, value in numeric.items() if value is not None}
    given |= {path: value for path, value in lists.items() if value}
    given |= dict(pairs("data.fields", "--field", field or ()))
    given |= dict(pairs("data.splits", "--split", split or ()))
    given |= dict(settings(other or ()))
    options = InitOptions(
        file=STANDARD_OUTPUT if to_stdout else file,
        model=model,
        data=data,
        tasks=tuple(_entries(task)),
        settings=given,
        yes=yes,
        force=force,
    )
    raise typer.Exit(write_sweep_file(options, standard_consoles()))


def _entries(given: Texts) -> list[str]:
    """Return the entries of a repeated option, each of which may itself list several."""
    found: Iterator[str] = (entry for each in given or () for entry in listed(each))
    return list(found)
