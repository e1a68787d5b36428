"""Documents that ``surogate-bench render`` prints."""

import json

import yaml
from rich.console import Console


def print_document(document: object, output: Console, *, as_json: bool) -> None:
    """Print a document as JSON or YAML."""
    if as_json:
        output.print_json(json.dumps(document))
        return
    output.out(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), highlight=False, end="")
