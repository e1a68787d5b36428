"""The summary as CSV, for programs."""

from surogate_bench_orchestrator.report.model.scores import STRICT
from surogate_bench_orchestrator.report.model.summary import Row, Summary
from surogate_bench_orchestrator.report.tables.csv.cells import ENDING_COLUMNS, flag, inert, numbers, to_csv_text

CSV_COLUMNS = (
    "key", "title", "recipe", "seed", "seeds_scored", "state", "reason",
    "accuracy", "stderr", "low", "high", "flexible_accuracy", "samples", "empty_answers", "eval_seconds",
    "delta_reference", "delta_reference_stderr", "delta_reference_low", "delta_reference_high",
    "p_reference", "p_reference_adjusted",
    "delta_base", "delta_base_low", "delta_base_high", "p_base_adjusted",
    "engine", "steps", "tokens", "tokens_per_second", "side_by_side", "threads", "train_seconds",
    "peak_memory_bytes", "weight_bytes", "operand_cache_bytes", "final_train_loss", "last_validation_loss",
    "resumed_from_step",
    "seeds", "seed_stddev", "seeds_compared", "accuracy_compared", "reference_accuracy_compared", "p_questions",
    "p_questions_adjusted", "seeds_compared_base", "p_base_questions_adjusted", "training_weight_bytes",
    "served_validation_loss", "task", "task_data",
    "covered_share", "largest_empty_share", "many_empty", "scored_split", "scored_sha256", "prompt", "num_fewshot",
    "special_tokens", "unlike_reference", "unlike_base", "reused_from",
    "source", "trained_under", "adapter_sha256", "kept_layers", "seeds_left_out", "processes",
    "padded_layers",
    *ENDING_COLUMNS,
)  # fmt: skip
"""Columns of summary.csv; numbers unrounded, an absent one empty, seeds separated by spaces.

``p_reference…`` and ``p_base…`` test recipes over seeds and questions, and are empty with fewer than two seeds;
``p_questions…`` and ``p_base_questions_adjusted`` compare two adapters of one seed, over questions only.
Differences are over ``seeds_compared…``: where these are not ``seeds``, ``accuracy_compared`` is over them.
``seeds_left_out`` have a result, but are not part of the row, as their answers were not kept.
``many_empty`` and ``unlike_…`` are ``true`` or empty; ``reused_from`` is empty in rows of several runs.
``cut_off_…`` are of answers that max_gen_toks ended, ``unformatted_…`` of those without an answer in the task's format;
``unfinished_share`` is that of wrong answers that were cut off or empty.
``source``, ``trained_under`` and ``adapter_sha256`` are of adapters that other software trained; ``source`` of a
foreign trainer is its command, and ``recipe`` its name. ``kept_layers`` stay in bf16, and the last blocks
of ``padded_layers`` are padded with zeros; both separated by spaces.
``accuracy`` is strict and ``flexible_accuracy`` flexible exact match; where they are not, columns ``metric`` and
``second_metric`` follow, and ``flexible_accuracy`` is empty where a task has one metric."""


def to_csv(summary: Summary) -> str:
    """Return CSV: one line per row of the summary, then one per run where there are several seeds."""
    named = {} if summary.metric == STRICT else {"metric": summary.metric, "second_metric": summary.second_metric}
    task = {"task": summary.task, "task_data": inert(summary.task_data), **named}
    return to_csv_text((*CSV_COLUMNS, *named), (task | row_cells(row) for row in summary.all_rows()))


def row_cells(row: Row) -> dict[str, object]:
    """Return the cells of a row, but for those of its task."""
    cells: dict[str, object] = {
        "key": row.key, "title": inert(row.title), "recipe": row.recipe, "seed": row.seed,
        "seeds_scored": row.seeds_scored, "state": row.state, "reason": inert(row.reason), "seeds": numbers(row.seeds),
        "many_empty": flag(row.many_empty), "seeds_left_out": numbers(row.kept.left_out),
        "unlike_reference": flag(row.unlike_reference), "unlike_base": flag(row.unlike_base),
        "reused_from": row.reused_from,
    }  # fmt: skip
    if (scored := row.scored) is not None:
        cells |= {
            "task_data": inert(scored.source), "scored_split": scored.split, "scored_sha256": scored.sha256,
            "prompt": scored.prompt, "num_fewshot": scored.num_fewshot,
            "special_tokens": inert(" ".join(scored.special_tokens)),
        }  # fmt: skip
    if row.foreign is not None:
        cells |= row.foreign.model_dump() | {"source": inert(row.foreign.source)}
    if row.score is not None:
        cells |= row.score.model_dump(exclude={"parallel_evaluations"})
    if row.training is not None:
        layers = {name: " ".join(getattr(row.training, name)) for name in ("kept_layers", "padded_layers")}
        cells |= row.training.model_dump() | layers
    if (found := row.versus_reference) is not None:
        cells |= {
            "delta_reference": found.delta, "delta_reference_stderr": found.stderr, "delta_reference_low": found.low,
            "delta_reference_high": found.high, "p_reference": found.p_value, "p_reference_adjusted": found.p_adjusted,
            "seeds_compared": numbers(found.seeds), "accuracy_compared": found.accuracy,
            "reference_accuracy_compared": found.other_accuracy, "p_questions": found.p_questions,
            "p_questions_adjusted": found.p_questions_adjusted,
        }  # fmt: skip
    if (found := row.versus_base) is not None:
        cells |= {
            "delta_base": found.delta, "delta_base_low": found.low, "delta_base_high": found.high,
            "p_base_adjusted": found.p_adjusted, "seeds_compared_base": numbers(found.seeds),
            "p_base_questions_adjusted": found.p_questions_adjusted,
        }  # fmt: skip
    return cells
