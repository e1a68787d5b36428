"""Makes batches from records: reading, tokenization, packing, and the schedule of batches."""
