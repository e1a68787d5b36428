"""The report as Markdown."""

from collections.abc import Iterator

from surogate_bench.machine.checks import Check, CheckReport, Comparison, Device, Outcome

TOKENS_PER_SECOND, PEAK_BYTES, WEIGHT_BYTES = "tokens/s", "peak memory bytes", "weight bytes"
"""Names of the figures of a timed run."""
PLAIN = "plain loop"
"""Name of the check that times Transformers and PEFT alone."""
_GIB = 2**30


def render(report: CheckReport) -> str:
    """Return the whole report."""
    return "\n".join([*_head(report), "", *_speeds(report), *_checks(report), ""])


def describe_check(check: Check) -> str:
    """Return a check in one line."""
    text = f"{check.outcome.value}: {check.group}: {check.name} ({check.seconds:.1f} s)"
    return f"{text}: {describe_reason(check)}" if check.outcome is not Outcome.PASSED else text


def describe_reason(check: Check) -> str:
    """Return the reason of a check, with the numbers that are outside of their tolerance."""
    outside = [_describe(comparison) for comparison in check.comparisons if not comparison.holds]
    return "; ".join([check.reason, *outside] if check.reason else outside)


def describe_device(device: Device) -> str:
    """Return name, capability, memory, driver and CUDA of a device in one line."""
    if device.compute_capability is None:
        return f"{device.name} ({device.problem or 'no GPU'})"
    major, minor = device.compute_capability
    memory = f"{(device.memory_bytes or 0) / _GIB:.0f} GiB"
    return (
        f"{device.name}, compute capability {major}.{minor}, {memory}, driver {device.driver or 'unknown'}, "
        f"torch built for CUDA {device.cuda}"
    )


def _head(report: CheckReport) -> Iterator[str]:
    kind = "GPU check" if report.device.is_gpu else "GPU check, dry run on a CPU: it proves nothing about a GPU"
    counts = ", ".join(f"{report.count(outcome)} {outcome.value}" for outcome in Outcome)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"# {kind}"
    yield ""
    yield f"**{'Complete' if report.complete else 'Not complete'}**: {counts}; exit code {int(report.exit_code)}."
    yield ""
    yield f"- Device: {describe_device(report.device)}"
    yield f"- CPU: {report.hardware.cpu}, {report.hardware.cores} cores"
    yield f"- Commit {report.commit}, started {report.started:%Y-%m-%d %H:%M} UTC: `{report.command}`"
    yield f"- {versions}"
    yield f"- Roundings of the oracle: {report.oracle}"


def _speeds(report: CheckReport) -> Iterator[str]:
    timed = [check for check in report.checks if TOKENS_PER_SECOND in check.figures]
    if not timed:
        return
    plain = next((check.figures[TOKENS_PER_SECOND] for check in timed if check.name == PLAIN), None)
    yield "| Run | Engine | tokens/s | Ratio to the plain loop | Peak memory | Weight bytes | Loss of the last step |"
    yield "|---|---|---|---|---|---|---|"
    for check in timed:
        speed = check.figures[TOKENS_PER_SECOND]
        ratio = "–" if plain is None else f"{speed / plain:.2f}"
        peak = f"{check.figures[PEAK_BYTES] / _GIB:.2f} GiB"
        weights = f"{check.figures[WEIGHT_BYTES] / 1e6:,.1f} MB" if WEIGHT_BYTES in check.figures else "–"
        cells = (check.name, check.engine, f"{speed:,.0f}", ratio, peak, weights, f"{check.losses[-1]:.4f}")
        yield f"| {' | '.join(cells)} |"
    yield ""


def _checks(report: CheckReport) -> Iterator[str]:
    yield "| Group | Check | Outcome | Measured (tolerance) | Seconds |"
    yield "|---|---|---|---|---|"
    for check in report.checks:
        measured = "; ".join(map(_describe, check.comparisons))
        cell = f"{check.reason}: {measured}" if check.reason and measured else check.reason or measured
        shown = cell.replace("|", "\\|").replace("\n", " ")
        yield f"| {check.group} | {check.name} | {check.outcome.value} | {shown} | {check.seconds:.1f} |"


def _describe(comparison: Comparison) -> str:
    found = "not finite" if comparison.found is None else f"{comparison.found:.3g}"
    return f"{comparison.quantity} {found} (≤ {comparison.limit:.3g})"
