"""The alerts, the dashboard and the page are about what the service really tells."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.support_e2e import ROOT, Serve, until
from ports import a_port
from promtool import promtool
from scraping import Scraped, http_get, scrape
from support import connected, refused

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
PAGE = ROOT / "docs" / "observability.md"

_METRIC = re.compile(r"\b(?:operation_service|process)_[a-z0-9_]+")
_ROW = re.compile(r"^\| `(operation_service_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
_CERTIFICATE = "operation_service_certificate_expiry_timestamp_seconds"
"""Told by a service that has a certificate."""


@pytest.fixture
async def told(serve: Serve) -> Scraped:
    """What a service with two workers tells, after calls of which some were refused."""
    metrics = f"127.0.0.1:{a_port()}"
    server = await serve("--workers", "2", "--metrics-listen", metrics)
    async with connected(server.address) as peer:
        await peer.propose()
        await refused(peer.named("other").propose())

    async def is_all_known() -> bool:
        scraped = await scrape(metrics)
        return all(scraped.get("dead_operators", worker=worker) == 0 for worker in ("1", "2"))

    await until(is_all_known)
    return await scrape(metrics)


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def rule_expressions() -> Iterator[str]:
    """The expressions of the alerts: what stands behind expr, in its line or indented below it."""
    for found in re.finditer(r"^( +)expr: (.*\n(?:\1  .*\n)*)", ALERTS.read_text(), re.MULTILINE):
        yield found[2].removeprefix("|")


def test_the_alerts_are_valid_and_do_what_their_tests_say() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", ALERTS.with_name("alerts_test.yaml").name, folder=ALERTS.parent)


def test_each_alert_says_what_is_wrong_and_where_it_is_explained() -> None:
    blocks = ALERTS.read_text().split("- alert: ")[1:]
    assert blocks
    for block in blocks:
        name = block.split()[0]
        assert "summary: " in block, name
        assert "description: " in block, name
        page, _, anchor = re.search(r"runbook_url: (\S+)", block)[1].partition("#")  # type: ignore[index]
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, name


async def test_the_dashboard_shows_what_the_service_tells(told: Scraped, tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    shown = expressions(dashboard)
    assert shown
    for expression in shown:
        names = set(_METRIC.findall(expression))
        assert names, expression
        assert names <= told.names, expression
    # Grafana's variables become what it puts in their place; then Prometheus itself has to understand it.
    rules = [
        {"record": f"shown:{number}", "expr": expression.replace("$__rate_interval", "5m").replace("$instance", "a|b")}
        for number, expression in enumerate(shown)
    ]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_dashboard_asks_for_its_data_source_and_places_nothing_twice() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {each["name"] for each in dashboard["templating"]["list"]} == {"datasource", "instance"}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not covered & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= covered


async def test_the_alerts_are_about_what_the_service_tells(told: Scraped) -> None:
    expected = list(rule_expressions())
    assert len(expected) == ALERTS.read_text().count("- alert: ")
    for expression in expected:
        names = set(_METRIC.findall(expression))
        assert names, expression
        assert names <= told.names, expression


async def test_the_page_has_exactly_the_metrics_that_there_are(told: Scraped) -> None:
    """Names, kinds, labels, and the very words of the help text."""
    rows = {name: (kind, labels, words) for name, kind, labels, words in _ROW.findall(PAGE.read_text())}
    rows.pop(_CERTIFICATE, None)
    expected = {}
    for family, kind in told.kinds.items():
        if not family.startswith("operation_service_"):
            continue
        name = f"{family}_total" if kind == "counter" else family
        labels = {
            label
            for (sample, pairs) in told.values
            if sample in {name, f"{family}_bucket"}
            for label, _ in pairs
            if label not in {"le", "worker"} or family.endswith("worker_up")
        } - {"le"}
        expected[name] = kind, ", ".join(f"`{label}`" for label in sorted(labels)), told.told[family]
    assert rows == expected


async def test_promtool_finds_nothing_wrong_with_what_is_told(serve: Serve) -> None:
    metrics = f"127.0.0.1:{a_port()}"
    await serve("--metrics-listen", metrics)
    _, text = await http_get(metrics)
    # It has an opinion on Python's own, whose names are not ours to give.
    assert promtool("check", "metrics", told=text) == ""


def test_the_pages_configuration_is_what_prometheus_takes(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "prometheus.yaml"
    file.write_text(block.replace("deploy/", f"{ROOT}/deploy/"))
    assert "13 rules" in promtool("check", "config", file)
