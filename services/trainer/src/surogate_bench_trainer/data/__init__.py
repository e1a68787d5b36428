"""From records to batches: reading, tokenization, packing, and the schedule of batches."""
