"""One page per kind of run: what its report shows, in which order."""
