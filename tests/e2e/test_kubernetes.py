"""deploy/kubernetes, put together by kubectl."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from e2e.support_e2e import run
from kubernetes_validate.utils import validate
from manifests import FOLDER, container, flags


async def rendered(folder: Path) -> list[dict[str, object]]:
    """What `kubectl kustomize` makes of a folder."""
    version = await run("kubectl", "version", "--client") if shutil.which("kubectl") else None
    if version is None or "Kustomize Version: v5" not in version.out:
        reason = "no kubectl with kustomize 5 is here"
        assert os.environ.get("KUBECTL_IS_NEEDED") != "1", reason
        pytest.skip(reason)
    made = await run("kubectl", "kustomize", folder)
    assert (made.code, made.err) == (0, "")
    return list(yaml.safe_load_all(made.out))


async def test_the_example_is_put_together_and_is_what_kubernetes_takes() -> None:
    documents = await rendered(FOLDER / "overlays" / "example")
    by_kind: dict[str, list[dict[str, object]]] = {}
    for document in documents:
        by_kind.setdefault(str(document["kind"]), []).append(document)
        if document["kind"] != "PodMonitor":
            validate(document, "1.37", strict=True)
    assert {kind: len(each) for kind, each in by_kind.items()} == {
        "Namespace": 1,
        "ServiceAccount": 1,
        "ConfigMap": 2,
        "Service": 1,
        "Deployment": 1,
        "PodDisruptionBudget": 1,
        "NetworkPolicy": 1,
        "PodMonitor": 1,
    }
    (deployment,) = by_kind["Deployment"]
    maps = {each["metadata"]["name"]: each["data"] for each in by_kind["ConfigMap"]}  # type: ignore[index]
    pod = container(deployment)
    assert pod["image"].startswith("registry.example.com/")
    variables = maps[pod["envFrom"][0]["configMapRef"]["name"]]
    assert isinstance(variables, dict)
    assert variables.keys() == flags().keys()
    assert ".n0stack.svc:2379" in variables["OPERATION_SERVICE_ETCD_ENDPOINTS"]


async def test_a_pod_can_be_annotated_for_prometheus(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "example" / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("components/pod-monitor", "components/scrape-annotations"))
    (deployment,) = [each for each in await rendered(overlay.parent) if each["kind"] == "Deployment"]
    template = deployment["spec"]["template"]  # type: ignore[index]
    assert template["metadata"]["annotations"]["prometheus.io/path"] == "/metrics"
