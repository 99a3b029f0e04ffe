"""Networks stacked from derived cells, and their training."""
