"""Correction for multiple comparisons."""

from collections.abc import Sequence


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons, in the order given (Holm 1979, Scand. J. Statist. 6:65).

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at or below alpha,
    whatever the dependence between the tests; here they share a baseline and the questions.
    """
    ascending = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(ascending):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
