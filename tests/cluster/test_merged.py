"""An adapter is scored merged into its base too, on a model server of its own."""

import pytest
from real_cluster.release import Release, Small, Until

from surogate_bench.results import EvalResult

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAME, RUN, STAGE = "merged", "bf16-s0", "serving-merged"


def test_a_merged_adapter_is_served_by_a_deployment_of_its_own_that_goes_once_it_is_scored(
    release: Release, small: Small, until: Until
) -> None:
    release.submit(NAME, small(recipes=["bf16"], serving__merged=True))
    until(lambda: release.pods(sweep=NAME, stage=STAGE, run=RUN), "its server is there", 500)
    until(lambda: release.finished(NAME), "the sweep is over", 300)
    status = release.status(NAME)
    assert (status.phase, status.failed) == ("Complete", 0), status
    with release.store() as store:
        results = release.results(store, NAME)
    beside, merged = (results[f"{RUN}/{stage}"].require_result(EvalResult) for stage in ("eval", "merged"))
    assert (beside.merged, merged.merged) == (False, True)
    assert release.runs(NAME)[RUN].merged_accuracies == {"bf16": pytest.approx(merged.strict.accuracy, abs=1e-6)}
    until(lambda: not release.pods(sweep=NAME, stage=STAGE), "its server is gone")
    release.remove(NAME)
