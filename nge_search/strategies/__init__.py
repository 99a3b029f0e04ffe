"""Search by queries: architectures are chosen one by one, each judged by an evaluator."""
