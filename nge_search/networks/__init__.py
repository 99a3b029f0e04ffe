"""Networks stacked from derived cells, as modules; how they are trained stands in `nge_search.training`."""
