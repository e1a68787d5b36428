"""The schema of a RecipeSweep's status: what the controller writes."""

from typing import Any

Schema = dict[str, Any]

PHASES = ("Pending", "Running", "Suspended", "Complete", "Failed", "Rejected")
CONDITIONS = ("Admitted", "Suspended", "Complete", "Failed")


def status_schema() -> Schema:
    """Make the structural OpenAPI v3 schema of ``status``."""
    return {
        "type": "object",
        "description": "How the sweep stands, as the controller last saw it.",
        "properties": {
            "observedGeneration": _integer("metadata.generation of the spec that this status is about."),
            "phase": {**_text("The sweep in one word."), "enum": list(PHASES)},
            "specHash": _text("Identity of the experiment, and part of the results' place."),
            "resultsURI": _text("Where the results are in the object store."),
            "startTime": _time("When the sweep was taken up."),
            "completionTime": _time("When its last run ended."),
            "progress": _text("Runs that ended, of all, for example 3/8."),
            "failed": _integer("Runs that failed."),
            "best": _text("Recipe of the highest mean accuracy so far, and that accuracy; not tested."),
            "conditions": _map_list(_condition(), key="type", text=f"One each of {', '.join(CONDITIONS)}."),
            "runs": _map_list(_row(), key="name", text="One row a run: a recipe with a seed, or the base model."),
            "services": _map_list(_row(), key="name", text="What the runs share: data preparation, model server."),
        },
    }


def _row() -> Schema:
    return {
        "type": "object",
        "required": ["name", "state"],
        "properties": {
            "name": _text("Name of the run, for example fp8-s0."),
            "recipe": _text("Name of its recipe."),
            "seed": _integer("Its seed."),
            "state": _text("Pending, Training, Trained, Evaluating, Succeeded, Failed, Skipped; a service's likewise."),
            "detail": _text("What it is doing within its state."),
            "attempt": _integer("1 for the first."),
            "step": _integer("Optimizer steps, or answered questions, so far."),
            "total": _integer("Of so many."),
            "loss": _number("Training loss."),
            "tokensPerSecond": _number("Training speed, tokens/s."),
            "elapsedSeconds": _number("Seconds that it has taken."),
            "accuracy": _number("Share of test questions answered right, strictly matched."),
            "stderr": _number("Standard error of the accuracy."),
            "uri": _text("Where its results are in the object store."),
            "reason": _text("Why it failed, was skipped, or had to be tried again: one word."),
            "message": _text("The same in a sentence."),
        },
    }


def _condition() -> Schema:
    return {
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {"type": "string", "maxLength": 316},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": {"type": "string", "maxLength": 1024},
            "message": {"type": "string", "maxLength": 32768},
        },
    }


def _map_list(items: Schema, *, key: str, text: str) -> Schema:
    return {
        "type": "array",
        "description": text,
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def _text(text: str) -> Schema:
    return {"type": "string", "description": text}


def _time(text: str) -> Schema:
    return {"type": "string", "format": "date-time", "description": text}


def _integer(text: str) -> Schema:
    return {"type": "integer", "format": "int64", "description": text}


def _number(text: str) -> Schema:
    return {"type": "number", "description": text}
