"""What TA-GATES' paper prints (Ning et al., NeurIPS 2022, Tables 1 to 3): Kendall's tau, means of nine experiments.

Keys are numbers of labels: shares of 7,290 (NAS-Bench-101), 7,813 (NAS-Bench-201), 5,896 (NAS-Bench-301, DARTS'
space) and 500 (NDS ENAS) architectures. `ta_gates` alone breaks no symmetry; Table 1 has it with "Add".
"""

from __future__ import annotations

COUNTS = {
    "nasbench101": (72, 364, 729, 3645, 7290),
    "nasbench201": (7, 39, 78, 390, 781),
    "darts": (29, 58, 294, 589, 2948),
    "enas": (25, 50, 125, 250, 500),
}
_TABLE1 = {
    "nasbench101": {
        "mlp": (0.3937, 0.5318, 0.5703, 0.6225, 0.6307),
        "gates": (0.6321, 0.7493, 0.7690, 0.7999, 0.8119),
        "ta_gates, add": (0.6686, 0.7744, 0.7839, 0.8133, 0.8217),
    },
    "nasbench201": {
        "mlp": (0.0162, 0.0863, 0.1756, 0.3885, 0.5492),
        "lstm": (0.1935, 0.5079, 0.5691, 0.6690, 0.7395),
        "gcn": (0.2461, 0.3113, 0.4080, 0.5461, 0.6095),
        "nasbowl": (0.4980, 0.6674, 0.5912, 0.7259, 0.7625),
        "xgboost": (0.0706, 0.3719, 0.4178, 0.6412, 0.7084),
        "gates": (0.4309, 0.6702, 0.7571, 0.8583, 0.8823),
        "ta_gates, add": (0.5382, 0.6707, 0.7731, 0.8660, 0.8890),
    },
    "darts": {
        "mlp": (0.2750, 0.4018, 0.5373, 0.5687, 0.6249),
        "lstm": (0.5161, 0.5689, 0.6893, 0.7144, 0.7572),
        "gcn": (0.0951, 0.1280, 0.2673, 0.2835, 0.3179),
        "xgboost": (0.2725, 0.3059, 0.3313, 0.3227, 0.3461),
        "gates": (0.5616, 0.6064, 0.6916, 0.7180, 0.7595),
        "ta_gates, add": (0.5728, 0.6351, 0.7123, 0.7331, 0.7685),
    },
    "enas": {
        "mlp": (0.1607, 0.2264, 0.3543, 0.3858, 0.4141),
        "lstm": (0.2594, 0.3406, 0.4509, 0.4875, 0.5517),
        "gcn": (0.2301, 0.3140, 0.3367, 0.3508, 0.3715),
        "gates": (0.3400, 0.4286, 0.5274, 0.5971, 0.6467),
        "ta_gates, add": (0.3458, 0.4407, 0.5485, 0.6324, 0.6683),
    },
}
#: Rows of NAS-Bench-101's part that cannot be read in the copy at hand (LSTM, GCN, NASBOWL, SemiNAS) are left out.
TABLE1: dict[str, dict[str, dict[int, float]]] = {
    space: {model: dict(zip(COUNTS[space], taus)) for model, taus in own.items()} for space, own in _TABLE1.items()
}

_TABLE2_COUNTS = {
    "nasbench101": (72, 364, 729, 3645),
    "nasbench201": (39, 78, 390, 781),
    "darts": (29, 58, 294, 589),
}
_TABLE2 = {
    "nasbench101": {
        "gates": (0.6321, 0.7493, 0.7690, 0.7999),
        "ta_gates": (0.6510, 0.7581, 0.7704, 0.8070),
        "ta_gates, random": (0.6425, 0.7612, 0.7711, 0.8020),
        "ta_gates, concat": (0.6585, 0.7689, 0.7819, 0.8086),
        "ta_gates, add": (0.6686, 0.7744, 0.7839, 0.8133),
    },
    "nasbench201": {
        "gates": (0.6702, 0.7571, 0.8583, 0.8823),
        "ta_gates": (0.6838, 0.7667, 0.8623, 0.8866),
        "ta_gates, random": (0.6777, 0.7688, 0.8634, 0.8836),
        "ta_gates, concat": (0.6847, 0.7708, 0.8632, 0.8856),
        "ta_gates, add": (0.6707, 0.7731, 0.8660, 0.8890),
    },
    "darts": {
        "gates": (0.5616, 0.6064, 0.6916, 0.7180),
        "ta_gates": (0.5735, 0.6182, 0.7020, 0.7280),
        "ta_gates, random": (0.5735, 0.6207, 0.7034, 0.7257),
        "ta_gates, concat": (0.5659, 0.6230, 0.7048, 0.7261),
        "ta_gates, add": (0.5728, 0.6351, 0.7123, 0.7331),
    },
}
TABLE2 = {
    space: {model: dict(zip(_TABLE2_COUNTS[space], taus)) for model, taus in own.items()}
    for space, own in _TABLE2.items()
}

_TABLE3 = {
    "nasbench101": {
        "single_gates": ((0.3636, 0.3473, 0.3147, 0.4796), (0.3856, 0.3820, 0.5034, 0.5903)),
        "multi_lstm": ((0.0123, 0.0659, 0.0723, 0.0518), (-0.0372, 0.1028, 0.2191, 0.1473)),
        "multi_gates": ((0.2862, 0.2912, 0.2883, 0.1413), (0.3455, 0.3341, 0.3370, 0.1818)),
        "ta_gates": ((0.3921, 0.4615, 0.4805, 0.5674), (0.5463, 0.5850, 0.5950, 0.6477)),
    },
    "nasbench201": {
        "single_gates": ((0.5882, 0.6654, 0.7317, 0.7732), (0.4914, 0.6915, 0.7237, 0.7806)),
        "multi_lstm": ((0.3189, 0.3797, 0.4771, 0.5285), (0.4166, 0.4795, 0.5491, 0.6062)),
        "multi_gates": ((0.5827, 0.6574, 0.7168, 0.7745), (0.6145, 0.6902, 0.7306, 0.7989)),
        "ta_gates": ((0.6297, 0.7110, 0.7827, 0.8140), (0.6648, 0.7363, 0.8213, 0.8624)),
    },
    "darts": {
        "single_gates": ((0.2028, 0.2106, 0.2807, 0.3347), (0.1557, 0.1549, 0.1954, 0.2432)),
        "multi_lstm": ((0.1914, 0.1464, 0.1132, 0.1187), (0.2046, 0.2153, 0.2283, 0.2318)),
        "multi_gates": ((0.1635, 0.1654, 0.1481, 0.1263), (0.1190, 0.1209, 0.1025, 0.0868)),
        "ta_gates": ((0.2345, 0.2322, 0.3092, 0.4249), (0.1963, 0.2944, 0.2928, 0.4178)),
    },
}
#: Of each model (tau with the half accuracy, tau with the final one).
TABLE3 = {
    space: {model: dict(zip(_TABLE2_COUNTS[space], zip(*taus))) for model, taus in own.items()}
    for space, own in _TABLE3.items()
}
