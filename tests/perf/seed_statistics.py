"""Error rates and coverage of the statistics over seeds, by simulation, beside the textbook alternative.

Two recipes of equal accuracy are compared; the share of comparisons with p < 0.05 should be at most 0.05. Answers are
right where a latent score is positive: difficulty of the question, an effect of the question on each recipe, an effect
of the seed, and noise. The alternative is the crossed analysis with variance components cut at zero and Satterthwaite's
degrees of freedom. Needs numpy and scipy (`make test` installs them):

    .venv/bin/python tests/perf/seed_statistics.py [--experiments 1000]
"""

import argparse
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from surogate_bench.statistics import compare_seeds, pool_seeds

RNG = np.random.default_rng(20260101)
ACCURACY = 0.8


def answers(seeds: int, questions: int, seed_points: float, question_effect: float) -> list[NDArray[np.bool_]]:
    """Right or wrong answers of two equal recipes, each of shape (seeds, questions)."""
    difficulty = RNG.normal(0, 1.5, (1, questions))
    scale = seed_points / (ACCURACY * (1 - ACCURACY)) / np.sqrt(2)
    level = 1.3 * np.log(ACCURACY / (1 - ACCURACY))
    return [
        level
        + difficulty
        + RNG.normal(0, question_effect / np.sqrt(2), (1, questions))
        + RNG.normal(0, scale, (seeds, 1))
        + RNG.normal(0, 1, (seeds, questions))
        > 0
        for _ in range(2)
    ]


def satterthwaite_p_value(table: NDArray[np.float64]) -> float:
    """Two-sided p value of a mean of 0 with variance components cut at zero."""
    s, q = table.shape
    mean = table.mean()
    rows, columns = table.mean(1) - mean, table.mean(0) - mean
    both = ((table - mean - rows[:, None] - columns) ** 2).sum() / ((s - 1) * (q - 1))
    squares = [(q * rows @ rows / (s - 1), s - 1), (s * columns @ columns / (q - 1), q - 1)]
    kept = [(square, df) for square, df in squares if square > both]
    kept.append(((1 - len(kept)) * both, (s - 1) * (q - 1)))
    total = sum(square for square, _ in kept)
    if total <= 0:
        return float(mean == 0)
    df = total**2 / sum(square**2 / df for square, df in kept)
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(total / table.size), df))


def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    experiments = parser.parse_args().experiments
    header = ("seeds", "questions", "seed effect", "question effect", "false alarms", "Satterthwaite", "half-width")
    print(" | ".join(header))  # noqa: T201 - a script that reports
    for seeds, questions, points, effect in product((2, 3, 5), (100, 500), (0.0, 0.02, 0.04), (0.2, 1.5)):
        ours = theirs = 0
        widths = []
        for _ in range(experiments):
            a, b = answers(seeds, questions, points, effect)
            found = compare_seeds(a.tolist(), b.tolist())
            ours += found.p_value < 0.05
            theirs += satterthwaite_p_value(a.astype(float) - b.astype(float)) < 0.05
            widths.append(100 * (found.high - found.low) / 2)
        print(  # noqa: T201 - a script that reports
            f"{seeds} | {questions} | {100 * points:.0f} points | {effect} | {ours / experiments:.3f} | "
            f"{theirs / experiments:.3f} | {np.median(widths):.1f} points"
        )
    for seeds, right in product((2, 3, 5), (0.98, 0.995)):
        covered = sum(
            (found := pool_seeds((RNG.random((seeds, 500)) < right).tolist())).low <= right <= found.high
            for _ in range(experiments)
        )
        print(f"coverage of {right} with {seeds} seeds: {covered / experiments:.3f}")  # noqa: T201 - a script that reports


if __name__ == "__main__":
    main()
