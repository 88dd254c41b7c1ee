"""deploy/kubernetes: each manifest is what Kubernetes takes, and they fit each other and the service."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from kubernetes_validate.utils import ValidationError, validate
from manifests import BASE, FOLDER, Manifest, container, documents, flags, resources

from operation_service import server
from operation_service.cli_serve import serve

KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
MANIFESTS = resources(BASE)
DEPLOYMENT = MANIFESTS["Deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = container(DEPLOYMENT)
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
PROBES = {name: CONTAINER[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}

VERSIONS = ("1.30", "1.37")
"""The oldest that has what is used, and the newest whose schemas are at hand."""


def named(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "pod-monitor"], ids=named)
def test_each_manifest_is_what_kubernetes_takes(path: Path, version: str) -> None:
    for document in documents(path):
        validate(document, version, strict=True)


def test_a_manifest_with_a_mistake_is_found_out() -> None:
    wrong: Any = yaml.safe_load(yaml.safe_dump(DEPLOYMENT))
    container(wrong)["readinessProbe"]["grcp"] = wrong["spec"]["template"]["spec"]["containers"][0][
        "readinessProbe"
    ].pop("grpc")
    with pytest.raises(ValidationError):
        validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=named)
def test_all_that_a_kustomization_names_is_there(path: Path) -> None:
    kustomization = documents(path)[0]
    for name in (*kustomization.get("resources", ()), *kustomization.get("components", ())):
        there = path.parent / name
        assert there.is_file() or (there / "kustomization.yaml").is_file(), name
    for generator in kustomization.get("configMapGenerator", ()):
        for name in (*generator.get("envs", ()), *generator.get("files", ())):
            assert (path.parent / name).is_file(), name


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=named)
def test_no_manifest_is_forgotten(path: Path) -> None:
    named_here = documents(path)[0].get("resources", ())
    assert {file.name for file in path.parent.glob("*.yaml")} - {path.name} <= set(named_here)


@pytest.mark.parametrize(
    "selector",
    [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        resources(FOLDER / "components" / "pod-monitor")["PodMonitor"]["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in POD["topologySpreadConstraints"]),
    ],
)
def test_what_selects_the_pods_selects_these(selector: dict[str, str]) -> None:
    assert selector
    assert selector.items() <= LABELS.items()


def test_ports_agree_wherever_they_stand() -> None:
    listens = {name: int(flags()[f"OPERATION_SERVICE_{name}"].rpartition(":")[2]) for name in (
        "LISTEN", "HEALTH_LISTEN", "METRICS_LISTEN"
    )}  # fmt: skip
    assert listens == {"LISTEN": PORTS["grpc"], "HEALTH_LISTEN": PORTS["health"], "METRICS_LISTEN": PORTS["metrics"]}
    (port,) = MANIFESTS["Service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (PORTS["grpc"], "grpc")
    assert PROBES["readiness"]["grpc"]["port"] == PORTS["health"]
    (endpoint,) = resources(FOLDER / "components" / "pod-monitor")["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in PORTS
    annotations = (FOLDER / "components" / "scrape-annotations" / "kustomization.yaml").read_text()
    assert f'prometheus.io/port: "{PORTS["metrics"]}"' in annotations


def test_callers_and_prometheus_are_let_in_and_nobody_else() -> None:
    spec = MANIFESTS["NetworkPolicy"]["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in spec["ingress"]] == [["grpc"], ["metrics"]]
    assert all(rule["from"] for rule in spec["ingress"])
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}


def test_every_variable_is_a_flag_of_the_command() -> None:
    known = {variable for parameter in serve.params for variable in variables(parameter)}
    assert flags().keys() <= known
    overlay = documents(FOLDER / "overlays" / "example" / "kustomization.yaml")[0]
    literals = [line for generator in overlay["configMapGenerator"] for line in generator.get("literals", ())]
    assert literals
    assert {line.partition("=")[0] for line in literals} <= flags().keys()


def variables(parameter: click.Parameter) -> list[str]:
    named = parameter.envvar or ()
    return [named] if isinstance(named, str) else list(named)


def test_every_folder_that_is_mounted_is_read_and_every_file_that_is_read_is_mounted() -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    files = [value for value in flags().values() if value.startswith("/")]
    assert {str(Path(file).parent) for file in files} == set(mounts.values())
    assert mounts.keys() == {volume["name"] for volume in POD["volumes"]}
    assert all("subPath" not in mount and mount["readOnly"] for mount in CONTAINER["volumeMounts"])


def test_what_a_config_map_is_mounted_for_is_in_it() -> None:
    generated = {each["name"]: each for each in documents(BASE / "kustomization.yaml")[0]["configMapGenerator"]}
    assert CONTAINER["envFrom"] == [{"configMapRef": {"name": "operation-service-flags"}}]
    assert generated["operation-service-flags"]["envs"] == ["flags.env"]
    (policy,) = (volume["configMap"] for volume in POD["volumes"] if volume["name"] == "policy")
    assert generated[policy["name"]]["files"] == [Path(flags()["OPERATION_SERVICE_POLICY"]).name]


def test_no_secret_stands_in_the_files() -> None:
    for path in FOLDER.rglob("*.*"):
        text = path.read_text()
        assert "kind: Secret\n" not in text
        assert "PRIVATE KEY" not in text


def test_secrets_are_named_and_readable_by_the_service_alone() -> None:
    for volume in POD["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["secretName"] in (BASE / "kustomization.yaml").read_text()
            assert volume["secret"]["defaultMode"] == 0o440
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsUser"] == 10001


def test_the_pod_keeps_to_the_restricted_standard() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert MANIFESTS["ServiceAccount"]["automountServiceAccountToken"] is False
    assert POD["serviceAccountName"] == MANIFESTS["ServiceAccount"]["metadata"]["name"]


def test_variables_that_kubernetes_would_set_for_the_service_do_not_mix_with_the_flags() -> None:
    assert POD["enableServiceLinks"] is False


def test_an_etcd_out_of_reach_kills_no_pod() -> None:
    """Health is NOT_SERVING then, so only the readiness may ask for it."""
    assert "grpc" in PROBES["readiness"]
    for name in ("startup", "liveness"):
        assert PROBES[name]["tcpSocket"] == {"port": "health"}


def test_a_stop_has_the_time_that_it_takes() -> None:
    pause = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] >= pause + server.STOP_SECONDS + 5


def test_a_rollout_and_a_drain_leave_two_replicas() -> None:
    assert DEPLOYMENT["spec"]["replicas"] == 3
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_memory_is_bounded_above_what_the_limits_page_tells_of() -> None:
    page = (FOLDER.parents[1] / "docs" / "limits.md").read_text()
    idle = int(re.findall(r"\| idle process \| \d+ to (\d+) MiB", page)[0])
    flooded = int(re.findall(r"flood of 5,120 calls .* \| \d+ to (\d+) MiB", page)[0])
    resources_: Manifest = CONTAINER["resources"]
    assert idle < flooded < int(resources_["requests"]["memory"].removesuffix("Mi"))
    assert resources_["limits"] == {"memory": "2Gi"}
