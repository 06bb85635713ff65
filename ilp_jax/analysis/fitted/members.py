"""What a fitted classifier is made of: logistic regression, and trees, as plain numbers.

Both give ``raw`` sums of rows, their ``change`` where some columns take other values (which
costs little where few trees ask for them), and probabilities ``of_raw`` sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """Multinomial logistic regression over the numbers and their hinges max(x - knot, 0).

    Attributes:
      knots: float64 [n_knots, n_columns]; no rows for no hinges.
      weights: float64 [n_classes, n_columns * (1 + n_knots)], the numbers' first.
      intercept: float64 [n_classes].
    """

    knots: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray

    def raw(self, x_NxD: np.ndarray) -> np.ndarray:
        """Logits, float64 [n_rows, n_classes]."""
        return hinged(x_NxD, self.knots) @ self.weights.T + self.intercept

    def change(self, x_NxD: np.ndarray, to_NxD: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        """By how much ``raw`` changes from x to other numbers, which differ in some columns."""
        some = list(columns)
        hinges_NxJ = [hinged(one[:, some], self.knots[:, some]) for one in (to_NxD, x_NxD)]
        weights_KxHxD = self.weights.reshape(len(self.weights), -1, x_NxD.shape[1])
        weights_KxJ = weights_KxHxD[:, :, some].reshape(len(self.weights), -1)
        return (hinges_NxJ[0] - hinges_NxJ[1]) @ weights_KxJ.T

    def of_raw(self, raw_NxK: np.ndarray) -> np.ndarray:
        """Probabilities, float64 [n_rows, n_classes]."""
        return softmax(raw_NxK)


@dataclasses.dataclass(frozen=True, eq=False)
class Trees:
    """Binary trees, one after another in flat arrays; at a node x <= threshold goes left.

    Attributes:
      roots: int [n_trees], each tree's first node; the left child of a node is the next one.
      column: int [n_nodes], -1 for a leaf.
      right: int [n_nodes], the right child; 0 for a leaf.
      threshold: float [n_nodes]; where it is float32, x is rounded so first, as in
        scikit-learn's forests.
      values: float64 [n_leaves, n_outputs], in the order of the leaves among the nodes.
      outputs: int [n_trees, n_outputs], the classes that a tree's values belong to.
      start: float64 [n_classes], what the trees' values are added to.
      boosted: the sums are logits of a softmax; else they are probabilities.
    """

    roots: np.ndarray
    column: np.ndarray
    right: np.ndarray
    threshold: np.ndarray
    values: np.ndarray
    outputs: np.ndarray
    start: np.ndarray
    boosted: bool

    def raw(self, x_NxD: np.ndarray) -> np.ndarray:
        """Sums of the trees' values, float64 [n_rows, n_classes]."""
        x_NxD = x_NxD.astype(self.threshold.dtype)
        rows_N = np.arange(len(x_NxD))[:, None]
        node_NxT = np.tile(self.roots, (len(x_NxD), 1))
        while (inner := self.column[node_NxT] >= 0).any():
            left = x_NxD[rows_N, self.column[node_NxT]] <= self.threshold[node_NxT]
            after = np.where(left, node_NxT + 1, self.right[node_NxT])
            node_NxT = np.where(inner, after, node_NxT)
        leaf_M = np.cumsum(self.column < 0) - 1
        values_NxTxO = self.values[leaf_M[node_NxT]]
        to_TxOxK = self.outputs[:, :, None] == np.arange(len(self.start))
        return self.start + np.tensordot(values_NxTxO, to_TxOxK.astype(np.float64), 2)

    def change(self, x_NxD: np.ndarray, to_NxD: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        """By how much ``raw`` changes from x to other numbers, which differ in some columns."""
        asks_M = np.isin(self.column, columns)
        asked_T = np.logical_or.reduceat(asks_M, self.roots)
        few = dataclasses.replace(self, roots=self.roots[asked_T], outputs=self.outputs[asked_T])
        return few.raw(to_NxD) - few.raw(x_NxD)

    def of_raw(self, raw_NxK: np.ndarray) -> np.ndarray:
        """Probabilities, float64 [n_rows, n_classes]."""
        return softmax(raw_NxK) if self.boosted else raw_NxK


KINDS = {"linear": Linear, "trees": Trees}


def hinged(x_NxD: np.ndarray, knots_JxD: np.ndarray) -> np.ndarray:
    """The columns and, for each row of knots, max(x - knot, 0)."""
    return np.concatenate([x_NxD, *(np.maximum(x_NxD - knots, 0.0) for knots in knots_JxD)], axis=1)


def softmax(logits_NxK: np.ndarray) -> np.ndarray:
    """Row-wise softmax."""
    weights = np.exp(logits_NxK - logits_NxK.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
