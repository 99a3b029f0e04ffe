"""Commands of single methods that leave no run folder."""
