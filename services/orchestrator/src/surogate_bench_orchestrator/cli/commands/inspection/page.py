"""An inspection as text for a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from surogate_bench.errors import printable
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.inspection import Inspection, Lengths, SeedSchedule, ShownSample, TaskPrompt, TrainedTokens
from surogate_bench_orchestrator.cli.commands.inspection.estimates import DiskNeeds, RecipeNeeds
from surogate_bench_orchestrator.cli.commands.inspection.framed import Marks, marked, print_framed
from surogate_bench_orchestrator.cli.targets.local.sweep import MIN_FREE_BYTES
from surogate_bench_orchestrator.cli.terminal.consoles import print_line
from surogate_bench_orchestrator.report.tables.fitted_table import Column, FittedTable
from surogate_bench_orchestrator.report.text.formats import duration, share, size

_BAR = 40
"""Characters of the longest bar."""
_UNKNOWN = "not estimated"


def show_inspection(
    inspection: Inspection,
    sweep: RecipeSweep,
    recipes: Sequence[RecipeNeeds],
    disk: DiskNeeds,
    console: Console,
) -> None:
    """Print what would be trained and scored, and what it needs."""
    marks = Marks.of(console)
    records = ", ".join(f"{info.records:,} {name}" for name, info in inspection.prepared.data.items())
    print_line(console, f"Model {printable(inspection.prepared.model_source)}; records: {records}")
    for warning in inspection.prepared.warnings:
        print_line(console, f"Warning: {printable(warning)}")
    _title(console, f"Samples as the model receives them; {marks.opening}…{marks.closing} is included in the loss")
    for sample in inspection.samples:
        _sample(console, sample, marks)
    _title(console, "Prompts as they are sent for scoring")
    for task in inspection.tasks:
        _prompt(console, task, marks)
    _lengths(console, inspection.lengths, marks)
    _title(console, "Training")
    for line in _training(inspection, sweep):
        print_line(console, line)
    console.print(_schedules(inspection.schedules))
    _title(console, "Recipes")
    console.print(_needs(recipes))
    for line in _notes(recipes):
        print_line(console, line)
    _title(console, "Disk")
    for line in _disk(disk, inspection, sweep):
        print_line(console, line)


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"), soft_wrap=True)


def _sample(console: Console, sample: ShownSample, marks: Marks) -> None:
    print_line(
        console,
        f"Record {sample.record:,} ({', '.join(sample.chosen)}): {sample.tokens:,} tokens, {sample.counted:,} included",
    )
    print_framed(console, marked(sample.parts, marks), marks)


def _prompt(console: Console, task: TaskPrompt, marks: Marks) -> None:
    facts = [] if task.records is None else [f"{task.records:,} records"]
    if task.tokens is not None:
        facts.append(f"the first prompt has {task.tokens:,} tokens, the longest {task.longest:,}")
    print_line(console, " ".join(filter(None, (f"{task.task}:", "; ".join(facts) + "." * bool(facts), *task.notes))))
    if task.prompt is not None:
        print_framed(console, Text(printable(task.prompt)), marks)


def _lengths(console: Console, lengths: Lengths, marks: Marks) -> None:
    _title(console, "Length of the training samples in tokens")
    print_line(
        console,
        f"minimum {lengths.minimum:,}, median {lengths.median:,}, 95th percentile {lengths.p95:,}, "
        f"maximum {lengths.maximum:,}",
    )
    names = [f"{each.first:,}-{each.last:,}" if each.first < each.last else f"{each.first:,}" for each in lengths.bins]
    width, most = max(map(len, names)), max(each.samples for each in lengths.bins)
    for name, each in zip(names, lengths.bins, strict=True):
        bar = marks.bar * -(-_BAR * each.samples // most)
        print_line(console, f"{name:>{width}}  {bar}{' ' * bool(bar)}{each.samples:,}")
    print_line(console, f"None is longer than training.max_length ({lengths.limit:,}): samples are never cut.")


def _training(inspection: Inspection, sweep: RecipeSweep) -> Iterator[str]:
    training, epoch = sweep.training, inspection.epoch
    yield f"An epoch has {epoch.tokens:,} tokens, of which {_counted(epoch)} are included in the loss."
    rows = training.micro_batch_size * training.gradient_accumulation_steps
    kind = f"rows of at most {training.max_length:,} tokens" if training.packing else "samples"
    yield (
        f"A step has up to {rows:,} {kind}: training.micro_batch_size {training.micro_batch_size:,} x "
        f"gradient_accumulation_steps {training.gradient_accumulation_steps:,}."
    )
    yield (
        "Samples are packed into rows; attention never crosses samples."
        if training.packing
        else "training.packing is off: a row is one sample."
    ) + " Nothing is padded."


def _counted(tokens: TrainedTokens) -> str:
    return f"{tokens.counted:,} ({share(tokens.counted / tokens.tokens)})"


def _schedules(schedules: Sequence[SeedSchedule]) -> FittedTable:
    table = FittedTable([
        *(Column(header=name, justify="right") for name in ("seed", "rows", "filled", "steps", "epochs")),
        Column(header="steps an epoch", justify="right", rank=1),
        Column(header="tokens in total", justify="right"),
        Column(header="in the loss", justify="right"),
    ])  # fmt: skip
    for each in schedules:
        cells = (
            f"{each.seed}",
            f"{each.rows:,}",
            share(each.row_fill),
            f"{each.steps:,}",
            f"{each.steps / each.steps_per_epoch:.2f}",
            f"{each.steps_per_epoch:,}",
            f"{each.total.tokens:,}",
            _counted(each.total),
        )
        table.add_row([Text(cell) for cell in cells])
    return table


def _needs(recipes: Sequence[RecipeNeeds]) -> FittedTable:
    table = FittedTable([
        Column(header="recipe", folds=True),
        Column(header="weights", justify="right"),
        Column(header="GPU memory", justify="right"),
        Column(header="peak measured", justify="right", rank=1),
        Column(header="tokens/s", justify="right"),
        Column(header="time per run", justify="right"),
    ])  # fmt: skip
    for each in recipes:
        measured = each.measured
        cells = (
            each.recipe,
            _UNKNOWN if each.weight_bytes is None else size(each.weight_bytes),
            _UNKNOWN if each.gpu_memory_bytes is None else size(each.gpu_memory_bytes),
            "-" if measured is None else size(measured.peak_memory_bytes),
            "-" if measured is None else f"{measured.tokens_per_second:,.0f}",
            _UNKNOWN if each.train_seconds is None else duration(each.train_seconds),
        )
        table.add_row([Text(cell) for cell in cells])
    return table


def _notes(recipes: Sequence[RecipeNeeds]) -> Iterator[str]:
    yield (
        "Weights: the blocks' linear layers as stored. GPU memory: an estimate from the model's configuration, of no "
        "use on a CPU."
    )
    sources = sorted({each.measured.sweep for each in recipes if each.measured})
    if sources:
        yield (
            "Speed and peak: measured on this machine with the same model, recipe, LoRA and micro-batch, in "
            f"{', '.join(sources)}; time is that of the optimizer steps alone."
        )
    if any(each.measured is None for each in recipes):
        yield "Time is not estimated where the store has no such measurement."


def _disk(disk: DiskNeeds, inspection: Inspection, sweep: RecipeSweep) -> Iterator[str]:
    model = size(inspection.model_bytes)
    yield f"Model: {model}, converted and stored" if disk.store_model else f"Model: {model}, used where it is"
    yield f"Prepared data: {size(disk.data)}"
    runs = len(sweep.recipes) * len(sweep.seeds)
    yield f"Adapters: {size(disk.adapters)} ({runs:,} training run{'s' * (runs != 1)})"
    yield f"Checkpoints: up to {size(disk.checkpoints)} while training"
    if sweep.serving.merged:
        yield f"Merged models: {model} for each server with a merged adapter, while it runs"
    yield f"Answers: {_UNKNOWN}. A sweep needs at least {size(MIN_FREE_BYTES)} free."
