"""Neural architecture search with graph embeddings (NGE)."""
