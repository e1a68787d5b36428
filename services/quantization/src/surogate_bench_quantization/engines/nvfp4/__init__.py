"""NVFP4 products: the state of a model, and the products of each engine, one module each."""
