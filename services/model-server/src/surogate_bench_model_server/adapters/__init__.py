"""The adapters in vLLM: delivered, loaded, calibrated, and proven to answer as themselves."""
