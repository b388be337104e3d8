"""A grid search of scikit-learn whose fits run on workq: ``python examples/grid_search.py``.

Needs scikit-learn. Searches the settings of a classifier of handwritten digits, and prints the best ones and who did the work.
"""

from __future__ import annotations

import warnings

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import workq
from workq.adapters.joblib import register


def search(workers: int = 2, images: int = 600) -> GridSearchCV:
    """Search in the first images, on so many workers, and return the search when it has ended."""
    digits = load_digits()
    grid = {"gamma": [0.0005, 0.001, 0.01], "C": [1, 10]}
    found = GridSearchCV(SVC(), grid, cv=3)
    with joblib.parallel_config(backend="workq", n_jobs=workers):
        found.fit(digits.data[:images], digits.target[:images])
    return found


def main() -> None:
    """Search, and tell."""
    register()
    found = search()
    print(f"best: {found.best_params_}, right in {found.best_score_:.0%} of the images")
    print(workq.workers())


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
