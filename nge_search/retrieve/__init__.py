"""A method: the networks that are built like a given one (Neural Architecture Retrieval: Pei et al., 2024)."""
