"""The small matrices of `supernet.folding`, in one pass over each."""

from __future__ import annotations

import numpy as np

from nge_search.supernet.kernels.cpu.decorators import summing


@summing
def moment_rows(sums, count, kinds, first, last, mean, covariance):
    """`folding.moments`, on float64 arrays; mean and covariance are written."""
    shares, columns, own, inverse = len(sums), mean.shape[1], last - first, 1.0 / count[0]
    for m in range(len(mean)):
        n = m // own * kinds + first + m % own
        for i in range(columns):
            mean[m, i] = 0.0
            for share in range(shares):
                mean[m, i] += sums[share, n, 0, i] * inverse
        for o in range(columns):
            for i in range(o):
                covariance[m, o, i] = covariance[m, i, o]
            for i in range(o, columns):
                covariance[m, o, i] = -mean[m, o] * mean[m, i]
            for share in range(shares):
                for i in range(o, columns):
                    covariance[m, o, i] += sums[share, n, 1 + o, i] * inverse


@summing
def owe_rows(mean, count, d_mean, d_covariance, kinds, first, slope, constant):
    """`folding.owe_moments`; slope and constant are written."""
    columns, edges = mean.shape[1], len(slope) // kinds
    own, inverse = len(mean) // edges, 1.0 / count[0]
    total = np.empty(columns)
    for m in range(len(mean)):
        n = m // own * kinds + first + m % own
        for i in range(columns):
            total[i] = d_mean[m, i] * inverse
        for o in range(columns):
            for i in range(columns):
                change = 2.0 * inverse * d_covariance[m, o, i]
                total[i] -= mean[m, o] * change
                slope[n, o, i] = change
        for i in range(columns):
            constant[n, i] = total[i]


@summing
def fold_rows(weight, p, mean, product, eps, y_mean, y_variance, deviation, matrix, right, bias):
    """`folding.fold` after its matrix product, on float64 arrays; everything from `y_mean` on is written."""
    count, rows, columns = weight.shape
    for n in range(count):
        for o in range(rows):
            total, variance = 0.0, 0.0
            for i in range(columns):
                total += weight[n, o, i] * mean[n, i]
                variance += weight[n, o, i] * product[n, o, i]
            variance = max(variance, 0.0)
            inverse = 1.0 / np.sqrt(variance + eps)
            scale = p[n] * inverse
            y_mean[n, o], y_variance[n, o], deviation[n, o], bias[n, o] = total, variance, inverse, -scale * total
            for i in range(columns):
                matrix[n, o, i] = scale * weight[n, o, i]
            for i in range(columns):
                right[n, i, o] = matrix[n, o, i]


@summing
def unfold_rows(
    weight, p, mean, product, y_mean, deviation, d_right, d_bias, d_weight, d_p, d_mean, d_product
):  # fmt: skip
    """`folding.fold_backward` before its matrix product: d_product is what the weight's transpose multiplies."""
    count, rows, columns = weight.shape
    kinds = count // len(d_bias)
    for n in range(count):
        d_p[n] = 0.0
        d_mean[n] = 0.0
        for o in range(rows):
            for i in range(columns):
                d_weight[n, o, i] = d_right[n, i, o]
            d_bias_o = d_bias[n // kinds, o]
            scale, d_scale = p[n] * deviation[n, o], -d_bias_o * y_mean[n, o]
            for i in range(columns):
                d_scale += d_weight[n, o, i] * weight[n, o, i]
            d_y_mean = -scale * d_bias_o
            d_variance = -0.5 * d_scale * scale * deviation[n, o] * deviation[n, o]
            d_p[n] += d_scale * deviation[n, o]
            for i in range(columns):
                change = d_y_mean * mean[n, i] + 2.0 * d_variance * product[n, o, i]
                d_weight[n, o, i] = scale * d_weight[n, o, i] + change
                d_mean[n, i] += d_y_mean * weight[n, o, i]
                d_product[n, o, i] = d_variance * weight[n, o, i]
