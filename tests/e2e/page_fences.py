"""The fences of pages that no page's session runs, each with the test that covers it."""

from collections.abc import Iterable

from e2e.page_blocks import Fence, fences, played

_GO_PROGRAM = "tests/e2e/test_go.py::test_the_program_of_the_page_does_what_the_page_shows"
_TRANSPORT = "tests/e2e/test_tls.py::test_what_the_page_shows_of_transport_works_as_it_stands"
_ACCESS = "tests/e2e/test_access.py::test_what_the_page_shows_of_who_may_do_what_works_as_it_stands"
_HTTP_SESSION = "tests/e2e/test_envoy.py::test_the_session_in_the_page_gives_what_the_page_shows"

ELSEWHERE: dict[str, dict[str, str]] = {
    # page: how the fence begins: the test
    "README.md": {
        "$ make run": "tests/e2e/test_pages.py::test_what_the_pages_make_can_be_made",
    },
    "docs/go.md": {
        "go install": "tests/e2e/test_go.py::test_what_needs_the_network_names_what_is_there",
        "go mod edit": "tests/e2e/test_go.py::test_what_needs_the_network_names_what_is_there",
        "apt-get install": "tests/e2e/test_go.py::test_what_ci_installs_is_what_the_page_says",
        "known=": _GO_PROGRAM,
        "$ ./operator": _GO_PROGRAM,
        "// ": "tests/e2e/test_go.py::test_the_pages_go_is_the_programs",
    },
    "docs/http.md": {
        "make run": "tests/e2e/test_envoy.py::test_the_configuration_is_valid_as_it_is",
        "$ api=": _HTTP_SESSION,
        "$ curl ": _HTTP_SESSION,
        "$ watched=": _HTTP_SESSION,
        "cat src/": "tests/e2e/test_envoy.py::test_requests_of_a_type_need_it_in_the_descriptor_set",
    },
    "docs/limits.md": {
        "PYTHONPATH=tests .venv/bin/python tools/memory.py": (
            "tests/e2e/test_pages.py::test_the_figures_of_the_limits_can_be_measured_again"
        ),
    },
    "docs/observability.md": {
        "scrape_configs": "tests/e2e/test_monitoring.py::test_the_pages_configuration_is_what_prometheus_takes",
        '{"time"': "tests/e2e/test_telling.py::test_the_pages_audit_line_is_what_the_service_writes",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "tests/e2e/test_traces.py::test_what_the_page_sets_traces_a_hundredth",
    },
    "docs/performance.md": {
        "$ make bench": "tests/e2e/test_pages.py::test_what_the_pages_make_can_be_made",
        "Measured 20": "tests/unit/test_bench_table.py::test_only_the_marked_section_of_a_document_is_written_anew",
    },
    "docs/security.md": {
        'ec="-newkey': _TRANSPORT,
        "operation-service serve --tls-cert": _TRANSPORT,
        "grpcurl -cacert": _TRANSPORT,
        "from operation_service.client import Client, Tls": _TRANSPORT,
        "# Agents carry": _ACCESS,
        "export OPERATION_SERVICE_CA": _ACCESS,
        "operation-service serve --tls-cert tls.crt --tls-key tls.key --policy": _ACCESS,
        "etcdctl() {": "tests/e2e/test_guarded_etcd.py::test_the_commands_of_the_page_are_enough",
        "operation-service serve --etcd-endpoints": (
            "tests/e2e/test_guarded_etcd.py::test_the_commands_of_the_page_are_enough"
        ),
    },
    "docs/reliability.md": {
        "make chaos SECONDS=600 SEED=...": "tests/e2e/test_pages.py::test_what_the_pages_make_can_be_made",
    },
}


def not_run(page: str, elsewhere: Iterable[str]) -> list[Fence]:
    """The fences of a page that its session does not run, and that do not begin like one that is run elsewhere."""
    blocks = fences(page)
    in_session = {fence.line for fence in played(blocks)}
    return [
        fence
        for fence in blocks
        if fence.line not in in_session and not any(fence.head.startswith(begin) for begin in elsewhere)
    ]
