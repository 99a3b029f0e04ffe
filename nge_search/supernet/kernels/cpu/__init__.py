"""What a cell computes on a CPU, compiled: one image at a time, so that it stays in the cache from step to step.

A thread takes images; for each it fills zero-padded planes (one per block of channels, so that taps need no test
for borders), convolves, and sums the moments of what it wrote before that leaves the cache. Where a convolution
reads a normalised product of stored maps, or a gradient is a sum of products, the plane is filled with it: neither
is stored. For stride 2 a plane keeps even and odd columns apart, so that adjacent outputs read adjacent inputs.

Everything is given by address. A matrix is (address, bytes between rows, bytes between columns); the stored maps
[positions, channels] are dense. Sums over positions are kept in float64, for each thread apart.

Parts whose arguments are literal numbers would be compiled for each: callers give them as `int64(0)`.
"""
