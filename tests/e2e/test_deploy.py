"""The files under deploy/ and the workflows, as far as they can be judged without a container engine, and with one."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TAG = r"[\w./-]+:(?!latest)[\w.-]*\d[\w.-]*"
SECRET = re.compile(r"(?i)(password|secret|token|api_?key)[ \t]*[=:][ \t]*['\"]?(?!\$|['\"]?$)\S+")


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Containerfile with what follows them; continued lines are joined, comments left out."""
    text = "".join(
        line for line in (DEPLOY / "Containerfile").open(encoding="utf-8") if not line.lstrip().startswith("#")
    )
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_images_are_pinned_and_come_from_no_named_registry() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG" and "=" in rest)
    sources = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(sources) == 3
    for source in sources:
        image = re.sub(r"\$\{(\w+)\}", lambda part: arguments[part[1]], source)
        assert re.fullmatch(f"{TAG}|{TAG.split(':')[0]}@sha256:[0-9a-f]{{64}}", image), image
        assert "." not in image.split(":")[0].split("/")[0], f"{image} names a registry"


def test_the_image_has_no_root_no_secret_and_one_volume() -> None:
    last = [number for number, (word, _) in enumerate(instructions()) if word == "FROM"][-1]
    final = instructions()[last:]
    users = [rest for word, rest in final if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1]), "not root, and a number that a cluster can check"
    order = [word for word, _ in final]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert [rest for word, rest in final if word == "VOLUME"] == ["/data"]
    assert {"HEALTHCHECK", "STOPSIGNAL", "CMD", "LABEL"} <= set(order)
    for word, rest in instructions():
        assert not (word in ("ENV", "ARG") and SECRET.search(rest)), rest
        assert word != "ADD", "which fetches and unpacks what it is given"
    assert not re.search(r"https?://", (DEPLOY / "Containerfile").read_text(encoding="utf-8"))


def test_what_the_image_copies_is_not_ignored() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in [part for part in rest.split() if not part.startswith("--")][:-1]
    }
    assert copied - {"."} <= allowed
    assert all((REPOSITORY / name).exists() for name in allowed)
    assert not allowed & {".git", ".venv", ".accelkd", "tests"}


def content(*parts: str) -> Any:
    """A YAML file under deploy/."""
    return yaml.safe_load(DEPLOY.joinpath(*parts).read_text(encoding="utf-8"))


def merged(first: Any, second: Any) -> Any:
    """Two compose files as compose merges them, as far as these need it: mappings by key, and else the second."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second
    return {
        key: merged(first[key], second[key]) if key in first and key in second else first.get(key, second.get(key))
        for key in first | second
    }


@pytest.fixture(scope="module", params=["compose.yaml", "compose.yaml:cluster.yaml"])
def compose(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The services of one machine, and those of it with runs on Ray."""
    return reduce(merged, (content("compose", name) for name in request.param.split(":")))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.compose-spec", [COMPOSE / "compose.yaml", COMPOSE / "cluster.yaml"]),
        ("vendor.github-workflows", WORKFLOWS),
    ],
)
def test_files_have_their_schema(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_ray_cluster_has_the_schema_of_ray() -> None:
    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        pytest.skip("Ray is not installed: the extra `cluster`")
    schema = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(DEPLOY / "ray/cluster.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_secret_is_in_what_ray_shows() -> None:
    """Its dashboard shows commands, runtime environments and configurations: credentials are the nodes' own."""
    instance = content("ray", "dagster.yaml")
    assert instance["storage"]["postgres"] == {"postgres_url": {"env": "ACCELKD_DAGSTER_POSTGRES_URL"}}
    assert set(instance["run_launcher"]["config"]["ray"]) == {"address", "num_cpus"}
    assert not SECRET.search((DEPLOY / "ray" / "cluster.yaml").read_text(encoding="utf-8"))


def test_dagster_on_ray_differs_where_it_has_to() -> None:
    here, on_ray = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (REPOSITORY / "dagster.yaml", DEPLOY / "ray" / "dagster.yaml")
    )
    same = {"telemetry", "nux", "run_queue", "python_logs", "run_retries", "retention"}
    assert {key: here[key] for key in same} == {key: on_ray[key] for key in same}
    assert here["concurrency"]["pools"] == on_ray["concurrency"]["pools"]
    assert here.keys() | {"storage", "compute_logs"} == on_ray.keys()


def ray_starts() -> dict[str, list[str]]:
    """Options of `ray start` of each machine in compose and `ray up`, the head's first."""
    services = content("compose", "cluster.yaml")["services"]
    started = {
        f"compose {name}": services[name]["entrypoint"] + services[name]["command"] for name in ("head", "worker")
    }
    for name in ("head", "worker"):
        command = content("ray", "cluster.yaml")[f"{name}_start_ray_commands"][-1]
        started[f"ray up {name}"] = shlex.split(command)
    assert all(words[:2] == ["ray", "start"] for words in started.values())
    return {name: words[2:] for name, words in started.items()}


def test_ray_takes_the_options_and_the_head_alone_is_the_head() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed: the extra `cluster`")
    for name, options in ray_starts().items():
        with scripts.start.make_context(
            "start", [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in options]
        ) as context:
            assert context.params["head"] == name.endswith("head"), name
            resources = json.loads(context.params["resources"])
            assert resources == ({"accelkd_head": 1} if context.params["head"] else {}), name
            assert context.params["num_cpus"] != 0, "a run on the head asks for a thousandth of a core"


def test_machines_of_compose_know_whether_they_are_the_head() -> None:
    services = content("compose", "cluster.yaml")["services"]
    heads = {name for name, service in services.items() if service.get("environment", {}).get("ACCELKD_HEAD") == "1"}
    assert heads == {"code", "daemon", "ui", "backup", "head"}
    worker = services["worker"]
    assert {"ACCELKD_STORE", "ACCELKD_LOCKS", "ACCELKD_DAGSTER_POSTGRES_URL", "RAY_AUTH_TOKEN"} <= set(
        worker["environment"]
    )
    assert "home:/data" not in worker["volumes"], "a worker has a cache of its own"


@pytest.mark.parametrize("path", KUBERNETES, ids=[path.name for path in KUBERNETES])
def test_manifests_have_the_schema_of_kubernetes(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        for checked in pod_templates(manifest) if manifest["kind"] == "RayCluster" else [manifest]:
            kubernetes_validate.validate(checked, "1.37", strict=True)


def pod_templates(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods of a RayCluster, the head's first, as objects that Kubernetes knows."""
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        for group in groups
    ]


def test_pods_are_confined_and_have_their_secrets_by_reference() -> None:
    cluster = content("kubernetes", "cluster.yaml")
    for pod in (template["template"]["spec"] for template in pod_templates(cluster)):
        assert pod["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001}.items()
        assert pod["automountServiceAccountToken"] is False
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} == set(container["resources"])
            assert "livenessProbe" in container
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
            for variable in container["env"]:
                assert "valueFrom" in variable or not re.search("TOKEN|SECRET|PASSWORD|URL$", variable["name"]), (
                    variable
                )


def test_the_head_pod_alone_has_the_home() -> None:
    cluster = content("kubernetes", "cluster.yaml")
    head, *workers = (template["template"]["spec"] for template in pod_templates(cluster))
    assert cluster["spec"]["headGroupSpec"]["resources"] == {"CPU": "1", "accelkd_head": "1"}
    claims = [volume.get("persistentVolumeClaim") for volume in head["volumes"]]
    assert {"claimName": "home"} in claims
    assert [container["name"] for container in head["containers"]] == ["ray", "daemon", "ui"]
    for container in head["containers"]:
        assert {"name": "ACCELKD_HEAD", "value": "1"} in container["env"]
    for worker in workers:
        assert not any("persistentVolumeClaim" in volume for volume in worker["volumes"])
        assert {variable["name"] for variable in worker["containers"][0]["env"]} == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: the manifests were not put together"
)
def test_kustomize_puts_the_manifests_together() -> None:
    command = ["kubectl", "kustomize", str(DEPLOY / "kubernetes")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    manifests = list(yaml.safe_load_all(result.stdout))
    images = re.findall(r"image: (\S+)", result.stdout)
    assert len(images) == 4
    assert len(set(images)) == 1
    assert re.fullmatch(TAG, images[0]), "each pod has the image that kustomization.yaml names"
    assert {manifest["kind"] for manifest in manifests} >= {"RayCluster", "ConfigMap", "PersistentVolumeClaim"}


def test_the_entry_point_takes_the_instance_of_the_cluster(tmp_path: Path) -> None:
    command = [sys.executable, str(DEPLOY / "entrypoint"), "accelkd", "--help"]
    for variables, launcher in (
        ({}, "CheckingRunLauncher"),
        ({"RAY_API_SERVER_ADDRESS": "http://head:8265"}, "RayRunLauncher"),
    ):
        home = tmp_path / launcher
        settings = {"PATH": os.environ["PATH"], "ACCELKD_HOME": str(home), "ACCELKD_CORES": "3", **variables}
        settings["PYTHONPATH"] = str(REPOSITORY)
        subprocess.run(command, env=settings, check=True, capture_output=True)
        instance = yaml.safe_load((home / "dagster" / "dagster.yaml").read_text(encoding="utf-8"))
        assert instance["run_launcher"]["class"] == launcher
        assert instance["concurrency"]["runs"]["max_concurrent_runs"] == 3


def test_only_the_proxy_is_reached_from_outside(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if service.get("ports")] == ["proxy"]
    internal = {name for name, network in compose["networks"].items() if network and network.get("internal")}
    for name in services.keys() - {"proxy", "oauth2-proxy"}:
        assert set(services[name]["networks"]) <= internal
        assert "network_mode" not in services[name]
    assert not set(services["proxy"]["networks"]) & set(services["code"]["networks"])


def test_every_service_is_confined_restarted_and_limited(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert service["restart"] == ("no" if name in ("backup", "bucket") else "unless-stopped"), name
        assert not re.match("0|root", service.get("user", "")), name
        assert re.match(r"\$\{\w+:-", service["image"]), f"{name}: another image can be named"
    for name in ("code", "daemon", "ui"):
        assert compose["services"][name]["user"] == "10001:10001"
        assert compose["services"][name]["volumes"] == ["home:/data"]


def test_every_variable_is_explained() -> None:
    explained = (COMPOSE / ".env.example").read_text(encoding="utf-8") + "".join(
        (REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("deploy.md", "scale.md")
    )
    text = "".join((COMPOSE / name).read_text(encoding="utf-8") for name in ("compose.yaml", "cluster.yaml"))
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert asked
    assert not {name for name in asked if name not in explained}
    assert not SECRET.search(re.sub(r"\$\{[^}]*\}", "$", text))
    ignored = subprocess.run(
        ["git", "check-ignore", "--quiet", "deploy/compose/.env"], cwd=REPOSITORY, check=False
    ).returncode
    assert ignored == 0


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed: its configuration was not loaded")
@pytest.mark.parametrize(("login", "variables"), [("basic", {"ACCELKD_PASSWORD_HASH": "$2a$14$x"}), ("oidc", {})])
def test_caddy_takes_either_login_and_none_without_one(login: str, variables: dict[str, str]) -> None:
    command = ["caddy", "validate", "--config", "Caddyfile", "--adapter", "caddyfile"]
    settings = {**os.environ, "ACCELKD_SITE": ":8443", "ACCELKD_LOGIN": login, **variables}
    assert subprocess.run(command, cwd=COMPOSE, env=settings, capture_output=True, check=False).returncode == 0
    for broken in ({"ACCELKD_LOGIN": "none"}, {"ACCELKD_LOGIN": "basic", "ACCELKD_PASSWORD_HASH": ""}):
        result = subprocess.run(command, cwd=COMPOSE, env={**settings, **broken}, capture_output=True, check=False)
        assert result.returncode != 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])
def test_workflows_pin_their_actions_and_grant_what_is_needed(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+(\.\d+\.\d+)?|[0-9a-f]{40})", step["uses"]), step["uses"]
            else:  # what somebody can name, such as a branch, is never part of a program
                assert "${{ github." not in step["run"], step["run"]


@pytest.mark.skipif(
    shutil.which("actionlint") is None, reason="actionlint is not installed: schema and structure alone"
)
def test_actionlint_has_nothing_to_say() -> None:
    result = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_release_tests_what_it_publishes() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    platforms = {entry["name"].partition("-")[0] for entry in jobs["wheels"]["strategy"]["matrix"]["include"]}
    assert platforms == {"linux", "macos", "windows"}
    steps = [step.get("run", "") for step in jobs["wheels"]["steps"]]
    assert steps.index("deploy/build-wheels test dist") > steps.index("deploy/build-wheels pure dist")
    assert {"wheels", "sources"} <= set(jobs["publish"]["needs"])
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert jobs["publish"]["permissions"] == {"id-token": "write", "attestations": "write"}


def test_build_wheels_says_what_it_does() -> None:
    script = DEPLOY / "build-wheels"
    assert os.access(script, os.X_OK)
    result = subprocess.run([script, "paint", "nowhere"], capture_output=True, text=True, check=False, cwd="/tmp")
    assert result.returncode == 2
    assert "deploy/build-wheels rust DIST" in result.stdout


def engine() -> str | None:
    """A container engine that answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


@pytest.mark.slow
@pytest.mark.parametrize("extras", ["platform,formats,metrics,lineage", "platform,formats,metrics,lineage,cluster"])
def test_the_image_is_built_and_ends_in_time(extras: str) -> None:
    command = engine()
    if command is None:
        pytest.skip("neither docker nor podman answers: the image was not built; its entry point is tested without one")
    build = [command, "build", "--file", "deploy/Containerfile", "--tag", "accelkd:test"]
    build += ["--build-arg", f"EXTRAS={extras}", "."]
    subprocess.run(build, cwd=REPOSITORY, check=True, timeout=3600)
    options = ["--rm", "--read-only", "--tmpfs", "/tmp", "--volume", "accelkd-test:/data"]
    ran = subprocess.run(
        [command, "run", *options, "accelkd:test", "catch-up"], check=True, capture_output=True, text=True, timeout=600
    )
    assert "0 failed" in ran.stdout
    login_shell = [command, "run", *options, "--entrypoint", "bash", "accelkd:test", "-lc"]
    for program in ("accelkd", *(["ray"] if "cluster" in extras else [])):
        subprocess.run([*login_shell, f"{program} --help"], check=True, timeout=60)
