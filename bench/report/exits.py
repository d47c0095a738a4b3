"""Figures of exits: what each ROM saved, of which reason, under which policy."""

from collections.abc import Sequence

from bench.record import Counts
from bench.report.data import Trio
from bench.report.figure import Figure, Table
from bench.report.style import COLOURS, HATCHES, draw, plain_axes
from vmm.core.event import Reason
from vmm.core.policy import POLICIES

__all__ = ["breakdown_figure", "policies_figure", "savings_figure"]

_MOST_REASONS = 7
"""More than that cannot be told apart; the rest is one."""


def savings_figure(trios: Sequence[Trio]) -> Figure:
    """Exits with each ROM, guest by guest, under the first policy that there is."""
    policy = trios[0].policy
    shown = [trio for trio in trios if trio.policy == policy]
    roms = ("no ROM", "identity", "batching")
    with draw(height=1.2 + 0.75 * len(shown)) as drawing:
        axes = plain_axes(drawing.subplots(), grid="x")
        for place, (rom, colour, hatch) in enumerate(zip(roms, COLOURS, HATCHES, strict=False)):
            counts = [_exits(trio, rom) for trio in shown]
            bars = axes.barh(
                [i + (place - 1) * 0.27 for i in range(len(shown))],
                counts,
                height=0.25,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=rom,
            )
            axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
        axes.set_yticks(range(len(shown)), [trio.name for trio in shown])
        axes.invert_yaxis()
        axes.set_xlabel(f"exits, policy {policy}")
        axes.margins(x=0.12)
        axes.legend(loc="lower right")
    rows = [
        (
            trio.name,
            trio.none.exits,
            _exits_or_dash(trio.identity),
            _exits_or_dash(trio.batching),
            _or_dash(trio.saved(trio.batching)),
            _percent(trio.percent(trio.batching)),
            _or_dash(trio.queue),
        )
        for trio in shown
    ]
    return Figure(
        "savings",
        "Exits saved",
        _savings_text(shown, policy),
        f"Bars of exits with no ROM, the identity and the batching ROM under {policy}: "
        + "; ".join(
            f"{trio.name} {trio.none.exits:,}, "
            + ", ".join(f"{counts.exits:,}" for counts in (trio.identity, trio.batching) if counts)
            for trio in shown
        ),
        drawing,
        (
            Table.of(
                f"Exits by ROM, policy {policy}",
                ("guest", "no ROM", "identity", "batching", "saved", "saved, %", "queue"),
                rows,
            ),
        ),
    )


def _exits(trio: Trio, rom: str) -> int:
    counts = {"no ROM": trio.none, "identity": trio.identity, "batching": trio.batching}[rom]
    return 0 if counts is None else counts.exits


def _or_dash(value: int | None) -> object:
    return "-" if value is None else value


def _exits_or_dash(counts: Counts | None) -> object:
    return "-" if counts is None else counts.exits


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _savings_text(shown: Sequence[Trio], policy: str) -> tuple[str, ...]:
    text = []
    with_batching = [(trio, trio.percent(trio.batching)) for trio in shown]
    known = [(trio, percent) for trio, percent in with_batching if percent is not None]
    if known:
        best, most = max(known, key=lambda pair: pair[1])
        least_trio, least = min(known, key=lambda pair: pair[1])
        sentence = (
            f"Under {policy} the batching ROM saves most in {best.name}: {most:.1f} % of "
            f"{best.none.exits:,} exits."
        )
        if len(known) > 1:
            if least > 0:
                sentence += f" It saves least in {least_trio.name}: {least:.1f} %."
            else:
                sentence += f" In {least_trio.name} it saves nothing ({least:.1f} %)."
        text.append(sentence)
    changed = [trio for trio in shown if trio.saved(trio.identity) not in {0, None}]
    if any(trio.identity for trio in shown):
        text.append(
            "The identity ROM, the control, saves nothing and adds nothing."
            if not changed
            else "The identity ROM, the control, changes the exits of "
            + ", ".join(f"{t.name} by {-(t.saved(t.identity) or 0):+,}" for t in changed)
            + "."
        )
    return tuple(text)


def breakdown_figure(trios: Sequence[Trio]) -> Figure:
    """The reasons of the exits, stacked, for each guest and ROM of the first policy."""
    policy = trios[0].policy
    bars: list[tuple[str, Counts]] = []
    for trio in trios:
        if trio.policy != policy:
            continue
        for rom, counts in (
            ("no ROM", trio.none),
            ("identity", trio.identity),
            ("batching", trio.batching),
        ):
            if counts is not None:
                bars.append((f"{trio.name}, {rom}", counts))
    totals = {
        reason: sum(
            counts.by_reason[reason].count for _, counts in bars if reason in counts.by_reason
        )
        for reason in Reason
    }
    ranked = sorted((r for r in Reason if totals[r]), key=lambda r: -totals[r])
    named = ranked[:_MOST_REASONS]
    rest = ranked[_MOST_REASONS:]
    with draw(height=1.4 + 0.28 * len(bars)) as drawing:
        axes = plain_axes(drawing.subplots(), grid="x")
        left = [0] * len(bars)
        for i, label in enumerate([*(r.value for r in named), *(["others"] if rest else [])]):
            group = [named[i]] if i < len(named) else rest
            widths = [_of(counts, group) for _, counts in bars]
            axes.barh(
                range(len(bars)),
                widths,
                left=left,
                color=COLOURS[i],
                hatch=HATCHES[i],
                edgecolor="white",
                linewidth=0.3,
                label=label,
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.invert_yaxis()
        axes.set_xlabel(f"exits, policy {policy}")
        axes.legend(loc="lower right", fontsize=8)
    return Figure(
        "reasons",
        "What the exits were",
        _reasons_text(trios, policy),
        "Stacked bars: each guest and ROM, its exits by reason. The numbers are in the table.",
        drawing,
        (
            Table.of(
                f"Exits by reason, policy {policy}",
                ("guest and ROM", *(reason.value for reason in ranked), "total"),
                [
                    (name, *(_of(counts, [reason]) for reason in ranked), counts.exits)
                    for name, counts in bars
                ],
            ),
        ),
    )


def _of(counts: Counts, reasons: Sequence[Reason]) -> int:
    return sum(counts.by_reason[reason].count for reason in reasons if reason in counts.by_reason)


def _reasons_text(trios: Sequence[Trio], policy: str) -> tuple[str, ...]:
    before = after = remaining = 0
    rest: dict[Reason, int] = {}
    for trio in trios:
        if trio.policy != policy or trio.batching is None:
            continue
        before += _of(trio.none, [Reason.PTE_WRITE])
        after += _of(trio.batching, [Reason.PTE_WRITE])
        remaining += trio.batching.exits
        for reason, row in trio.batching.by_reason.items():
            rest[reason] = rest.get(reason, 0) + row.count
    if not rest:
        return ()
    text = []
    if before:
        text.append(
            f"Over all these guests the batching ROM leaves {after:,} of {before:,} exits for "
            "stores to page tables."
        )
    most, count = max(rest.items(), key=lambda item: item[1])
    text.append(
        f"Of the exits that remain, {100 * count / remaining:.0f} % are {most.value} "
        f"({count:,} of {remaining:,})."
    )
    return tuple(text)


def policies_figure(trios: Sequence[Trio]) -> Figure | None:
    """What batching saves under each processor; none where only one was asked about."""
    names = [p.name for p in POLICIES if any(t.policy == p.name for t in trios)]
    if len(names) < 2:
        return None
    guests = sorted({trio.name for trio in trios})
    found = {(trio.name, trio.policy): trio for trio in trios}
    with draw(height=3.2) as drawing:
        axes = plain_axes(drawing.subplots())
        for i, guest in enumerate(guests):
            heights = [
                (trio.percent(trio.batching) or 0.0) if (trio := found.get((guest, name))) else 0.0
                for name in names
            ]
            axes.bar(
                [n + (i - (len(guests) - 1) / 2) * 0.8 / len(guests) for n in range(len(names))],
                heights,
                width=0.76 / len(guests),
                color=COLOURS[i % len(COLOURS)],
                hatch=HATCHES[i % len(HATCHES)],
                edgecolor="white",
                label=guest,
            )
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("exits saved, %")
        axes.axhline(0, color="#7F7F7F", linewidth=0.8)
        axes.legend(fontsize=8, ncols=2)
    paged = [p.name for p in POLICIES if not p.shadow and p.name in names]
    text = [
        "The same guests on other processors. svm-unsync is the stronger baseline: its leaf tables "
        "may go out of step until the guest flushes, which saves many exits without a ROM."
        if "svm-unsync" in names
        else "The same guests on other processors."
    ]
    for name in paged:
        saved = sum(t.saved(t.batching) or 0 for t in trios if t.policy == name)
        text.append(
            f"With hardware-assisted paging ({name}) page tables cost no exits: "
            + ("there is nothing to save" if saved <= 0 else f"{saved:,} exits are saved")
            + (f", and the ROM adds {-saved:,} exits in all." if saved < 0 else ".")
        )
    return Figure(
        "policies",
        "On other processors",
        tuple(text),
        "Bars: exits saved by the batching ROM, in percent, by policy and guest.",
        drawing,
        (
            Table.of(
                "Exits without a ROM and with the batching ROM, by policy",
                ("guest", "policy", "no ROM", "batching", "saved", "saved, %"),
                [
                    (
                        trio.name,
                        trio.policy,
                        trio.none.exits,
                        _exits_or_dash(trio.batching),
                        _or_dash(trio.saved(trio.batching)),
                        _percent(trio.percent(trio.batching)),
                    )
                    for trio in trios
                ],
            ),
        ),
    )
