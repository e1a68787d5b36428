"""What the embedded sweep needs: word problems and the pre-training of the model that solves them."""
