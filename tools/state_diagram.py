"""The states of an operation and what leads from one to another: as data, as a picture and as a table.

`python -m tools.state_diagram generate` draws docs/states.svg and writes the table in docs/concepts.md, `check` says
whether they are up to date. That the data is what the policy does is for tests/unit/test_state_diagram.py to prove.
"""

from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from tools.committed import ROOT, main

PICTURE = Path("docs/states.svg")
PAGE = Path("docs/concepts.md")
TABLE_MARKS = ("<!-- transitions: made by tools/state_diagram.py -->\n", "<!-- /transitions -->\n")

NONE = "none"
"""There is no operation."""
RAN_OUT = ("EXPIRED", "OPERATOR_DEAD")
OVER = ("SUCCEEDED", "FAILED", "CANCELLED")
ANEW = (NONE, *OVER)
"""From where a new operation begins."""
STATES = ("PENDING", "LOCKED", *RAN_OUT, *OVER)

DEADLINE = "the deadline passes"
ANYBODY = "anybody but a [cancelled holder](#is_disabled_cancel-and-cancelling)"


class Edge(NamedTuple):
    """A change of state.

    Attributes:
        sources: From each of these states.
        cause: The call, or the deadline.
        target: To this one.
        event: What a watch is told.
        who: Who may call so, or what it depends on.
        short: The cause in the picture.
    """

    sources: tuple[str, ...]
    cause: str
    target: str
    event: str
    who: str
    short: str


EDGES = (
    Edge(ANEW, "CreateOperation", "PENDING", "CREATED", "anybody", "Create"),
    Edge(ANEW, "CreateOperation with a lock", "LOCKED", "LOCKED", ANYBODY, "Create with a lock"),
    Edge(ANEW, "ProposeOperation", "LOCKED", "LOCKED", ANYBODY, "Propose"),
    Edge(("PENDING",), "ProposeOperation", "LOCKED", "LOCKED", ANYBODY, "Propose"),
    Edge(("PENDING",), "CancelOperation", "CANCELLED", "CANCELLED", "anybody", "Cancel"),
    Edge(("LOCKED",), "ProposeOperation", "LOCKED", "RENEWED", "the holder", "Propose (renew)"),
    Edge(("LOCKED",), "AppendOperationLog", "LOCKED", "LOGGED", "the holder", "Append"),
    Edge(("LOCKED",), "CompleteOperation", "SUCCEEDED", "SUCCEEDED", "the holder", "Complete"),
    Edge(("LOCKED",), "CompleteOperation with an error", "FAILED", "FAILED", "the holder", "Complete with|an error"),
    Edge(
        ("LOCKED",),
        "CancelOperation",
        "CANCELLED",
        "CANCELLED",
        "the holder, unless it disabled that",
        "Cancel (unless|disabled)",
    ),
    Edge(("LOCKED",), DEADLINE, "EXPIRED", "EXPIRED", "cancelling was not disabled", "the deadline passes"),
    Edge(
        ("LOCKED",),
        DEADLINE,
        "OPERATOR_DEAD",
        "OPERATOR_DEAD",
        "cancelling was disabled",
        "the same, while|cancelling is disabled",
    ),
    Edge(RAN_OUT, "ProposeOperation", "LOCKED", "LOCKED", ANYBODY, "Propose (take over)"),
    Edge(RAN_OUT, "CancelOperation", "CANCELLED", "CANCELLED", "anybody", "Cancel"),
)


class Arrow(NamedTuple):
    """How the edges between two places are drawn: a path, and where their words stand (x, y, "start" or "end")."""

    path: str
    x: int
    y: int
    anchor: str = "start"


ARROWS = {
    (ANEW, "PENDING"): Arrow("M200,70 H362", 250, 60),
    (ANEW, "LOCKED"): Arrow("M130,95 C130,190 230,235 381,245", 178, 165),
    (("PENDING",), "LOCKED"): Arrow("M430,92 V242", 440, 140),
    (("PENDING",), "CANCELLED"): Arrow("M495,70 H915 Q930,70 930,85 V475 Q930,490 915,490 H843", 690, 60),
    (("LOCKED",), "LOCKED"): Arrow("M365,262 C300,255 300,305 363,281", 302, 275, "end"),
    (("LOCKED",), "SUCCEEDED"): Arrow("M390,292 L293,464", 322, 385, "end"),
    (("LOCKED",), "FAILED"): Arrow("M425,292 L443,464", 430, 412, "end"),
    (("LOCKED",), "CANCELLED"): Arrow("M465,292 C490,400 600,440 702,482", 545, 385),
    (("LOCKED",), "EXPIRED"): Arrow("M495,262 L699,224", 512, 226),
    (("LOCKED",), "OPERATOR_DEAD"): Arrow("M495,278 L679,318", 505, 318),
    (RAN_OUT, "LOCKED"): Arrow("M657,185 C580,165 500,190 464,242", 520, 160),
    (RAN_OUT, "CANCELLED"): Arrow("M770,372 V464", 780, 420),
}
PLACES = {
    "PENDING": (430, 70),
    "LOCKED": (430, 270),
    "EXPIRED": (770, 220),
    "OPERATOR_DEAD": (770, 320),
    "SUCCEEDED": (290, 490),
    "FAILED": (445, 490),
    "CANCELLED": (770, 490),
}
"""The middle of each state's box."""
COLOURS = {"LOCKED": "#dbeafe", "OPERATOR_DEAD": "#fee2e2", "FAILED": "#fef3c7", "SUCCEEDED": "#dcfce7"}


def picture() -> str:
    """Draw the diagram, on a ground of its own so that it can be read on any page."""
    boxes = "".join(_box(state) for state in STATES)
    arrows = "".join(
        _arrow(ARROWS[between], [edge.short for edge in edges])
        for between, edges in groupby(EDGES, key=lambda edge: (edge.sources, edge.target))
    )
    return _SVG.format(description=escape(_description()), boxes=boxes, arrows=arrows)


def table() -> str:
    """Write the edges down for those who cannot see the picture."""
    rows = [
        f"| {', '.join(edge.sources)} | {edge.cause} | {edge.target} | {edge.event} | {edge.who} |\n" for edge in EDGES
    ]
    return f"| from | by | to | event | who, when |\n|---|---|---|---|---|\n{''.join(rows)}"


def page() -> str:
    """Return the page with the table as it has to be."""
    before, rest = (ROOT / PAGE).read_text(encoding="utf-8").split(TABLE_MARKS[0])
    return f"{before}{TABLE_MARKS[0]}{table()}{TABLE_MARKS[1]}{rest.split(TABLE_MARKS[1])[1]}"


def _description() -> str:
    return " ".join(f"{' or '.join(edge.sources)} to {edge.target}: {edge.cause}." for edge in EDGES)


def _box(state: str) -> str:
    x, y = PLACES[state]
    width = 130 if len(state) < len("OPERATOR_DEAD") else 170
    fill = COLOURS.get(state, "#ffffff")
    return (
        f'  <rect x="{x - width // 2}" y="{y - 22}" width="{width}" height="44" rx="8" fill="{fill}"/>\n'
        f'  <text class="state" x="{x}" y="{y + 5}">{state}</text>\n'
    )


def _arrow(arrow: Arrow, labels: list[str]) -> str:
    lines = [line for label in labels for line in label.split("|")]
    words = "".join(
        f'  <text x="{arrow.x}" y="{arrow.y + 16 * number}" text-anchor="{arrow.anchor}">{escape(line)}</text>\n'
        for number, line in enumerate(lines)
    )
    return f'  <path class="arrow" d="{arrow.path}"/>\n{words}'


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 560" width="950" height="560" role="img" \
aria-labelledby="title description">
  <title id="title">The states of an operation</title>
  <desc id="description">{description}</desc>
  <defs>
    <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">
      <path d="M0,0 L10,5 L0,10 z" fill="#334155"/>
    </marker>
  </defs>
  <style>
    text {{ font: 13px sans-serif; fill: #0f172a }}
    .state {{ font-weight: bold; text-anchor: middle }}
    .group {{ fill: #64748b }}
    rect {{ stroke: #334155; stroke-width: 1.5 }}
    .frame {{ fill: #f1f5f9; stroke: #94a3b8; stroke-dasharray: 5 4 }}
    .arrow {{ fill: none; stroke: #334155; stroke-width: 1.5; marker-end: url(#head) }}
    .again {{ stroke: #94a3b8; stroke-dasharray: 5 4 }}
  </style>
  <rect x="1" y="1" width="948" height="558" rx="12" fill="#ffffff" style="stroke: #cbd5e1"/>
  <rect class="frame" x="657" y="172" width="226" height="200" rx="12"/>
  <text class="group" x="672" y="191">the lock ran out</text>
  <rect class="frame" x="205" y="445" width="655" height="90" rx="12"/>
  <text class="group" x="545" y="520">over</text>
  <rect class="frame" x="30" y="45" width="170" height="50" rx="25"/>
  <text class="state" x="115" y="66">no operation,</text>
  <text class="state" x="115" y="83">or one that is over</text>
  <path class="arrow again" d="M205,490 H80 Q65,490 65,475 V97"/>
  <text class="group" x="75" y="455">is as good as</text>
  <text class="group" x="75" y="471">no operation</text>
{boxes}{arrows}</svg>
"""

if __name__ == "__main__":
    main({PICTURE: picture, PAGE: page}, "make picture")
