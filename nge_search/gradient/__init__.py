"""Search by gradient descent: a supernet and the embedding are trained in turn."""
