"""What a check returns: findings, each a number beside the one that theory expects."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Finding", "Report", "Verdict", "decide", "limit", "structural"]


@dataclass(frozen=True)
class Finding:
    """One comparison of a check.

    Attributes:
        name: What was compared.
        passed: None if the draws cannot decide.
        number: The estimate.
        expected: Its value for a correct implementation.
        error: Standard error of the estimate; 0 where it is exact.
        meaning: One sentence: what the result means.
    """

    name: str
    passed: bool | None
    number: float
    expected: float
    error: float
    meaning: str

    @property
    def status(self) -> str:
        return {True: "passed", False: "FAILED", None: "undecided"}[self.passed]

    def __str__(self) -> str:
        error = f" ± {self.error:.2g}" if self.error else ""
        return f"{self.name} is {self.number:.4g}{error}, expected {self.expected:g}"


@dataclass(frozen=True, repr=False)
class Report:
    """The findings of a check. It is true if none failed, so `assert check(prior)` is a test.

    `print(report)` shows a table, `report["normalisation"]` returns one finding.
    """

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no finding failed. A finding that is undecided did not fail."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.passed is False)

    @property
    def undecided(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.passed is None)

    def raise_if_failed(self) -> None:
        """Raise an error with the whole table if a finding failed.

        Raises:
            AssertionError: If one did.
        """
        if not self.passed:
            raise AssertionError(f"{len(self.failed)} of {len(self.findings)} findings failed\n{self}")

    def __bool__(self) -> bool:
        return self.passed

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no finding is called {name!r}: choose one of {', '.join(f.name for f in self.findings)}")

    def __repr__(self) -> str:  # short: pytest shows its first 240 characters for `assert check(...)`
        if self.passed:
            return f"Report({len(self.findings)} findings, {len(self.undecided)} undecided, none failed)"
        return f"Report({len(self.failed)} failed: {'; '.join(map(str, self.failed))})"

    def __str__(self) -> str:
        rows = [("finding", "result", "number", "error", "expected", "meaning")]
        for f in self.findings:
            error = f"{f.error:.2g}" if f.error else ""
            rows.append((f.name, f.status, f"{f.number:.4g}", error, f"{f.expected:g}", f.meaning))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
        )

    def prefixed(self, part: str) -> tuple[Finding, ...]:
        """The findings, each named as one of a part."""
        return tuple(replace(finding, name=f"{part}: {finding.name}") for finding in self.findings)


@dataclass(frozen=True)
class Verdict:
    """The sentences of a finding, one for each result."""

    passed: str
    failed: str
    undecided: str = "The draws cannot decide this."

    def __getitem__(self, passed: bool | None) -> str:
        return {True: self.passed, False: self.failed, None: self.undecided}[passed]


def limit(comparisons: int) -> float:
    """Standard errors beyond which a finding fails: 5 for one comparison, more for the largest of many.

    The tail of a normal distribution falls as exp(-t^2 / 2), so that this keeps the rate of false alarms below 1e-6.
    """
    return math.sqrt(25 + 2 * math.log(max(comparisons, 1)))


def decide(
    name: str,
    number: Tensor | float,
    expected: float,
    error: Tensor | float,
    verdict: Verdict,
    *,
    tolerance: float = 0.0,
    excess: Tensor | None = None,
    blind: Tensor | None = None,
) -> Finding:
    """Make a finding of the worst of many comparisons.

    Args:
        name: Name of the finding.
        number: The estimates, of any shape.
        expected: What each should be.
        error: Their standard errors.
        verdict: Its sentences.
        tolerance: Difference that is accepted besides, as for rounding.
        excess: The difference as a share of what is accepted, if not |number - expected| / (limit x error + tolerance).
        blind: Where the draws say nothing.
    """
    number, error = (torch.as_tensor(t, dtype=torch.float64).detach().cpu().reshape(-1) for t in (number, error))
    error = error.expand_as(number)
    if excess is None:
        accepted = limit(number.numel()) * error + tolerance
        excess = (number - expected).abs() / accepted.clamp(min=1e-300)
    excess = excess.detach().cpu().reshape(-1).nan_to_num(nan=math.inf)
    unseen = torch.zeros_like(excess, dtype=torch.bool) if blind is None else blind.detach().cpu().reshape(-1)
    worst = int(torch.where(unseen, -1.0, excess).argmax())
    passed: bool | None = not bool(excess[worst] > 1)
    if unseen.all() or (passed and unseen.any()):
        worst, passed = int(unseen.double().argmax()), None
    return Finding(name, passed, number[worst].item(), expected, error[worst].item(), verdict[passed])


def structural(name: str, problems: list[str], fine: str) -> Finding:
    """A finding that counts problems, each a clause; none are expected."""
    return Finding(name, not problems, float(len(problems)), 0.0, 0.0, "; ".join(problems) if problems else fine)
