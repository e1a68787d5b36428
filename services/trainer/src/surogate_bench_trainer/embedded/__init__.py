"""Parts of the embedded sweep: word problems, and the pre-training of the model that solves them."""
