"""A judge that any machine has: how many letters two texts share."""

import numpy as np


def score(pairs):
    sets = [[set(text) for text in pair] for pair in pairs]
    return np.array([len(one & two) / len(one | two) for one, two in sets])
