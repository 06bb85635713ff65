"""Kinds of classifier: fitted with scikit-learn, and the same as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ilp_jax.analysis.fitted.members import Linear, Trees, hinged

SEED = 0
KNOTS = (0.25, 0.5, 0.75)
"""Quantiles of the fitting rows at which a number may change its slope."""

_one_thread = threadpool_limits.wrap(limits=1)
"""Quicker on so few rows, and sums are taken in one order."""
Member = tuple[Any, Linear | Trees]
"""A scikit-learn estimator, and the same as plain numbers."""


@_one_thread
def linear(x_NxD: np.ndarray, y_N: np.ndarray) -> Member:
    """Logistic regression with hinges: each number has a bent line of its own."""
    from sklearn.linear_model import LogisticRegression

    knots = np.quantile(x_NxD, KNOTS, axis=0)
    estimator = LogisticRegression(C=0.02, max_iter=2000, random_state=SEED)
    estimator.fit(hinged(x_NxD, knots), y_N)
    return estimator, Linear(knots, estimator.coef_, estimator.intercept_)


@_one_thread
def boosted(x_NxD: np.ndarray, y_N: np.ndarray) -> Member:
    """Gradient boosting of small trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    estimator = HistGradientBoostingClassifier(
        learning_rate=0.06,
        max_iter=120,
        max_leaf_nodes=8,
        min_samples_leaf=15,
        l2_regularization=5.0,
        max_features=0.3,
        early_stopping=False,
        random_state=SEED,
    )
    estimator.fit(x_NxD, y_N)
    return estimator, of_boosting(estimator)


@_one_thread
def forest(x_NxD: np.ndarray, y_N: np.ndarray) -> Member:
    """Extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier

    estimator = ExtraTreesClassifier(
        n_estimators=150, min_samples_leaf=5, max_features=0.4, random_state=SEED
    ).fit(x_NxD, y_N)
    return estimator, of_forest(estimator)


CANDIDATES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Member], ...]] = {
    "linear": (linear,),
    "boosted": (boosted,),
    "forest": (forest,),
    "linear_boosted": (linear, boosted),
    "all": (linear, boosted, forest),
}
"""Kinds of classifier: one estimator, or the mean of several."""


def of_boosting(estimator: Any) -> Trees:
    """A fitted HistGradientBoostingClassifier of three or more classes as plain numbers.

    Its trees are not public in scikit-learn: the tests compare the result with its own.
    """
    predictors = estimator._predictors  # [n_rounds][n_classes]
    parts = [
        {
            "column": np.where(tree["is_leaf"] == 1, -1, tree["feature_idx"].astype(np.int64)),
            "left": tree["left"].astype(np.int64),
            "right": tree["right"].astype(np.int64),
            "threshold": np.where(tree["is_leaf"] == 1, 0.0, tree["num_threshold"]),
            "values": tree["value"][:, None],
        }
        for tree in (one.nodes for one_round in predictors for one in one_round)
    ]
    outputs = np.array([[k] for one_round in predictors for k in range(len(one_round))])
    start = np.asarray(estimator._baseline_prediction, np.float64).ravel()
    return _joined(parts, outputs, start, boosted=True)


def of_forest(estimator: Any) -> Trees:
    """A fitted forest of scikit-learn as plain numbers."""
    n_classes, n_trees = len(estimator.classes_), len(estimator.estimators_)
    parts = [
        {
            "column": np.where(tree.children_left < 0, -1, tree.feature).astype(np.int64),
            "left": tree.children_left,
            "right": tree.children_right,
            "threshold": _floor(np.where(tree.children_left < 0, 0.0, tree.threshold)),
            "values": tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True) / n_trees,
        }
        for tree in (one.tree_ for one in estimator.estimators_)
    ]
    outputs = np.tile(np.arange(n_classes), (n_trees, 1))
    return _joined(parts, outputs, np.zeros(n_classes), boosted=False)


def _floor(threshold: np.ndarray) -> np.ndarray:
    """The greatest float32 that is not above: the same for rows that are float32."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _joined(
    trees: list[dict[str, np.ndarray]], outputs: np.ndarray, start: np.ndarray, boosted: bool
) -> Trees:
    """Trees one after another, with places counted through and values of leaves alone."""
    sizes = [len(tree["column"]) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    whole = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    inner, shift = whole["column"] >= 0, np.repeat(roots, sizes)
    place = np.arange(len(inner))
    if (whole["left"] + shift != place + 1)[inner].any():
        raise NotImplementedError("trees of this scikit-learn do not go on with the left child")
    return Trees(
        roots=roots,
        column=whole["column"],
        right=np.where(inner, whole["right"] + shift, 0),
        threshold=whole["threshold"],
        values=whole["values"][~inner],
        outputs=outputs,
        start=start,
        boosted=boosted,
    )
