"""From records to batches: JSONL records, tokens, packing, and the order in which batches are trained on."""
