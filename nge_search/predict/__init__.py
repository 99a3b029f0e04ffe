"""Predictors: what an architecture will reach when it is trained, told from its graph and from few trainings."""
