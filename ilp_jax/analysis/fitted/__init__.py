"""Fitted diagnosis: a calibrated classifier over signals, as plain numbers in JSON.

``inputs``      signals as the numbers that a classifier sees, and which method sees which
``classifier``  the fitted classifier: probabilities from numbers, to and from JSON
``members``     what it is made of: logistic regression, and trees
``method``      verdicts and evidence: the methods ``model``, ``model_blind`` and ``majority``
``kinds``       kinds of classifier that can be fitted (scikit-learn), as plain numbers
``fit``         fitting and calibrating one, with worlds left out
``figures``     how well it tells causes of worlds that it was not fitted on
``worlds``      rows of planted worlds to fit on
``__main__``    ``python -m ilp_jax.analysis.fitted --workdirs W [W2 ...]``

The JSON files beside this code are package data. They are applied with numpy alone, hold
nothing but numbers and names, and are never fitted again by a run.
"""
