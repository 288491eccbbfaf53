"""The facts of one execution of a run, as data, and as text for terminals and logs.

Pure: everything that it shows is handed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from corpuscore.words import counted

_LABELS_SHOWN = 5
_PARAGRAPHS_SHOWN = 3
_LINE_CHARACTERS = 48
_EXCERPT_CHARACTERS = 220


@dataclass(frozen=True, slots=True)
class Strongest:
    """The document with the highest probability of one label."""

    label: str
    probability: float
    document_id: str
    text: str

    @property
    def excerpt(self) -> str:
        """The text on one line, cut at a word."""
        return self.cut(_EXCERPT_CHARACTERS)

    def cut(self, characters: int) -> str:
        """The text on one line of so many characters at the most, cut at a word."""
        line = " ".join(self.text.split())
        return line if len(line) <= characters else line[:characters].rsplit(" ", 1)[0] + " …"


@dataclass(frozen=True, slots=True)
class ObjectLine:
    """Documents and tokens of one object of the corpus."""

    uri: str
    rows: int
    scored: int
    rejected: int
    tokens: int


@dataclass(frozen=True, slots=True)
class RejectLine:
    """One document that was not scored, and where it is."""

    place: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """One execution of a run, from corpus to table.

    Attributes:
        run, run_id, page: The run's folder, its name, and its report page.
        corpus, model, precision, fingerprint: What was scored with what.
        warehouse, table: Where the rows are; the warehouse without its password.
        partitions, scored_partitions: Of the run, and those that this run scored itself.
        rows, scored, rejected, truncated: Documents; rows = scored + rejected.
        reasons: Rejects by reason.
        rows_loaded, rejects_loaded, superseded: Rows that the load wrote and replaced; zeros in a no-op.
        rows_in_table, rejects_in_table: Counted in the warehouse, for this run's work ids.
        tokens, unique_texts, seconds: Of the scoring that this run did; seconds of wall time.
        busy: Seconds that each step needed (see scorer.Meter), summed over workers; steps overlap.
        label_means: Mean probability by label.
        label_shares: Share of documents in which a label is the strongest.
        strongest: The strongest document of some labels.
        findings: Of the validation and the load, as JSON.
        outdated: Documents of objects that a later plan had loaded otherwise; rows = in the table + rejects + these.
        removed: Rows and rejects of objects that have left the corpus.
        started, ended: Of this execution, in ISO 8601: when it was planned, and when this was written.
        asked_by: Who planned it, and where.
        options: Of the job, those that are not at their default.
        versions: Of what did it, by name.
        backend, arithmetic: Of the scorer, see records.ScorerInfo.
        workers, worker_seconds: How many scored, and for how long all together.
        timeline: Documents a second in equal steps of the time of scoring; empty where nothing was scored.
        previous_means: Mean probability by label in the model's run before, in the same table.
        score_bins: Documents that this execution scored, by score in equal bins from 0 to 1, for each label.
        token_bins: The same documents by tokens: up to each of records.TOKEN_EDGES, and beyond.
        objects, objects_total: Those with the most documents, and how many there are.
        rejects: Some of them.
        queries: SQL to go on with, by what it is for.
    """

    run: str
    run_id: str
    page: str
    corpus: list[str]
    model: str
    precision: str
    fingerprint: str
    warehouse: str
    table: str
    partitions: int
    scored_partitions: int
    rows: int
    scored: int
    rejected: int
    truncated: int
    reasons: dict[str, int]
    rows_loaded: int
    rejects_loaded: int
    superseded: int
    rows_in_table: int
    rejects_in_table: int
    tokens: int
    unique_texts: int
    seconds: float
    busy: dict[str, float]
    label_means: dict[str, float]
    label_shares: dict[str, float]
    strongest: list[Strongest] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    outdated: int = 0
    removed: int = 0
    started: str = ""
    ended: str = ""
    asked_by: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    backend: str = ""
    arithmetic: str = ""
    workers: int = 0
    worker_seconds: float = 0.0
    timeline: list[float] = field(default_factory=list)
    previous_means: dict[str, float] = field(default_factory=dict)
    score_bins: dict[str, list[int]] = field(default_factory=dict)
    token_bins: list[int] = field(default_factory=list)
    objects: list[ObjectLine] = field(default_factory=list)
    objects_total: int = 0
    rejects: list[RejectLine] = field(default_factory=list)
    queries: dict[str, str] = field(default_factory=dict)

    @property
    def nothing_new(self) -> bool:
        """Whether the run found all of its work done: no model call, no row written or removed."""
        return not (self.scored_partitions or self.rows_loaded or self.rejects_loaded or self.removed)

    @property
    def rows_per_second(self) -> float | None:
        """Documents a second of the scoring that this run did."""
        return self.scored / self.seconds if self.seconds and self.scored_partitions else None

    @property
    def accounts(self) -> list[tuple[str, int, int]]:
        """What must be equal: (in words, one side, the other side)."""
        stored = self.rows_in_table + self.rejects_in_table + self.outdated
        return [
            ("documents read = scored + rejected", self.rows, self.scored + self.rejected),
            ("documents read = in the table + rejects + outdated", self.rows, stored),
        ]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {**asdict(self), "nothing_new": self.nothing_new, "rows_per_second": self.rows_per_second}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of to_json."""
        known = {name: item for name, item in value.items() if name not in ("nothing_new", "rows_per_second")}
        return cls(
            **{
                **known,
                "strongest": [Strongest(**item) for item in value["strongest"]],
                "objects": [ObjectLine(**item) for item in value.get("objects", ())],
                "rejects": [RejectLine(**item) for item in value.get("rejects", ())],
            }
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """Names and values of the summary's head, in reading order."""
        yield "corpus", ", ".join(self.corpus)
        yield "model", f"{self.model} ({self.precision}, {self.fingerprint})"
        yield "documents in", f"{self.rows:,} in {counted(self.partitions, 'partition')}"
        yield "scored", f"{self.scored:,}" + (f" ({self.truncated:,} truncated)" if self.truncated else "")
        yield "rejected", f"{self.rejected:,}" + self._reasons()
        yield "loaded", self._loaded()
        yield "in the table", f"{counted(self.rows_in_table, 'row')}, {counted(self.rejects_in_table, 'reject')}"
        if self.outdated:
            yield "outdated", f"{self.outdated:,} documents, of objects that a later plan has loaded"
        if self.rows_per_second:
            tokens = self.tokens / self.seconds
            yield "rate", f"{self.rows_per_second:,.0f} documents/s, {tokens:,.0f} tokens/s ({self.seconds:.1f} s)"
        yield "table", f"{self.table} in {self.warehouse}"
        yield "report", self.page

    def _reasons(self) -> str:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.reasons.items()))
        return f" ({listed})" if listed else ""

    def _loaded(self) -> str:
        if self.nothing_new and not self.outdated:
            return "nothing to do: all of it was scored and loaded before"
        replaced = f", {self.superseded:,} older rows replaced" if self.superseded else ""
        removed = f", {self.removed:,} rows of departed objects removed" if self.removed else ""
        rows, rejects = counted(self.rows_loaded, "row"), counted(self.rejects_loaded, "reject")
        return f"{rows}, {rejects}{replaced}{removed}"

    def top_labels(self) -> list[tuple[str, float, float]]:
        """(label, share of documents in which it is the strongest, mean probability), largest share first."""
        ordered = sorted(self.label_shares, key=lambda label: (-self.label_shares[label], label))
        return [(label, self.label_shares[label], self.label_means.get(label, 0.0)) for label in ordered]

    def render(self) -> RenderableType:
        """The summary for a terminal, which fits its screen; the page has the rest."""
        head = Table.grid(padding=(0, 2))
        head.add_column(no_wrap=True)
        head.add_column(overflow="fold")  # an address stays whole, so that it can be copied
        for name, value in self.facts():
            head.add_row(Text(name, style="dim"), Text(value))
        sections: list[RenderableType] = [Text(f"run {self.run_id}", style="bold"), head]
        if self.label_shares:
            sections += [Text(""), self._distribution()]
        if self.strongest:
            sections += [Text(""), *self._paragraphs()]
        sections += [
            Text(f"{finding['level']}: {finding['message']}", style="red" if finding["level"] == "error" else "yellow")
            for finding in self.findings
            if finding["level"] != "info"
        ]
        return Group(*sections)

    def _distribution(self) -> Table:
        table = Table(box=None, padding=(0, 2), title="label distribution", title_justify="left", title_style="dim")
        table.add_column("label")
        table.add_column("strongest in", justify="right")
        table.add_column("", no_wrap=True)
        table.add_column("mean", justify="right")
        top = self.top_labels()
        scale = max(top[0][1], 1e-9)
        for label, share, mean in top[:_LABELS_SHOWN]:
            table.add_row(
                label, f"{share:.1%}", "▇" * max(1, round(24 * share / scale)) if share else "", f"{mean:.3f}"
            )
        if len(top) > _LABELS_SHOWN:
            table.add_row(f"{len(top) - _LABELS_SHOWN} more in the report", style="dim")
        return table

    def _paragraphs(self) -> Iterator[Text]:
        yield Text("the strongest paragraph for", style="dim")
        for item in self.strongest[:_PARAGRAPHS_SHOWN]:
            yield Text.assemble(
                (f"  {item.label}", "bold"),
                f" {item.probability:.2f}  “{item.cut(_LINE_CHARACTERS)}”",
                (f"  {item.document_id}", "dim"),
            )

    def text(self, width: int = 110) -> str:
        """The same without colours, for logs and plain output."""
        out = StringIO()
        Console(file=out, width=width, color_system=None, highlight=False).print(self.render())
        return out.getvalue()
