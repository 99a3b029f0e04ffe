"""What NAL's paper prints ("Automating Neural Architecture Design without Search", Tables 1 to 4), in percent."""

from __future__ import annotations

#: Table 1, NAS-Bench-101 with cells of up to 7 vertices: queries, and test accuracy of the best cell.
TABLE1 = {
    "random search": (1000, "93.54"),
    "regularised evolution": (1000, "93.72"),
    "REINFORCE": (1000, "93.58"),
    "Bayesian optimisation": (1000, "93.72"),
    "NAO": (1000, "93.81"),
    "E2EPP": (1000, "93.77 ± 0.13"),
    "SSANA": (1000, "94.01 ± 0.12"),
    "NAL": (160, "94.03 ± 0.05"),
}
#: Tables 2 and 3: test errors of the genotype that NAL draws, and its parameters in millions.
TABLES_2_3 = {"CIFAR-10": ("2.18", 3.2), "ImageNet": ("23.5 / 7.0", 5.0)}
#: Table 4, by what is left out: samples (S), the network on links turned round (I), attention (G). Mean and best
#: test accuracy of 100 drawn cells.
TABLE4 = {
    "S off, I off": (92.58, 93.87),
    "S off": (92.77, 93.93),
    "I off": (93.36, 93.91),
    "G off": (93.44, 93.98),
    "full": (93.60, 94.03),
}
