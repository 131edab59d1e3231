"""What `deploy/` holds fits together, to the code, to the lock, and to the forms that other programs ask for."""

import fnmatch
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command_line import parse
from small_sweeps import SWEEP

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
BIN = Path(sys.executable).parent
RESULTS = "/shared/results"


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def loaded(name: str) -> Any:
    return yaml.safe_load(text_of(name))


def locked(package: str) -> str:
    found = re.search(rf"^{package}==([^ ]+)", (REPOSITORY / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, package
    return found[1]


def own_version() -> str:
    found = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


# Every command


def commands_in(text: str) -> list[list[str]]:
    """The arguments of each `vlm-rm` in a line of a shell."""
    words = shlex.split(text, comments=False)
    starts = [place for place, word in enumerate(words) if Path(word).name == "vlm-rm"]
    return [words[start + 1 :] for start in starts]


def test_every_sweep_is_one_that_the_command_line_knows_and_a_retry_resumes_it(tmp_path: Path) -> None:
    (on_vms,) = [line.removeprefix("#   ") for line in text_of("vms.yaml").splitlines() if "vlm-rm sweep" in line]
    inner = shlex.split(on_vms)[-1]
    for line in (loaded("kuberay/job.yaml")["spec"]["entrypoint"], inner):
        ((command, file, *options),) = commands_in(line)
        assert command == "sweep"
        assert (REPOSITORY / file.removeprefix("/app/")).is_file()
        assert {"--resume", "--yes"} <= set(options)
        assert options[options.index("--results") + 1] == RESULTS
        parse([command, file, *(str(tmp_path) if each == RESULTS else each for each in options)])


def check_ray_start(words: list[str]) -> None:
    from ray.scripts.scripts import start

    start.make_context("start", list(words))


# The image


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage; the first is FROM."""
    lines = [line for line in text_of("Dockerfile").splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    for line in whole.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found[rest.split(" AS ")[1]] = []
        if word and found:
            found[[*found][-1]].append((word, rest.strip()))
    return found


def steps_of(stage: str) -> list[str]:
    """The commands that a stage runs."""
    return [step.strip() for word, rest in stages()[stage] if word == "RUN" for step in rest.split("&&")]


def sent_to_the_builder(file: str) -> bool:
    """Whether Dockerfile.dockerignore lets a file through: the last line that fits it, or one of its folders, decides."""
    sent = True
    for line in text_of("Dockerfile.dockerignore").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = Path(file).parts
        if line and not line.startswith("#") and any(fnmatch.fnmatch(part, pattern) for part in (file, *parts)):
            sent = line.startswith("!")
    return sent


def test_the_stages_are_one_for_each_kind_of_node_and_the_last_is_for_cpus() -> None:
    made_from = {name: stage[0][1].split(" AS ")[0] for name, stage in stages().items()}
    assert made_from == {"installed": "${BASE}", "gpu": "installed", "mlflow": "installed", "cpu": "installed"}
    assert [*made_from][-1] == "cpu"


def test_what_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    copied = [source for stage in stages().values() for word, rest in stage if word == "COPY" for source in rest.split()[:-1]]
    assert {"requirements.lock", "vlm_rm_sweeps", "sweeps"} <= set(copied)
    assert [each for each in copied if not (REPOSITORY / each).exists() or not sent_to_the_builder(each)] == []
    assert sent_to_the_builder("vlm_rm_sweeps/cli/sweeps.py")
    assert not any(map(sent_to_the_builder, (".git", ".venv", "results", "tests", "vlm_rm_sweeps/cli/__pycache__/a.pyc")))


def test_the_image_installs_as_make_does() -> None:
    """The same commands in the same order, with hashes; only places, and what is the image's own matter, differ."""

    def install_of(line: str) -> tuple[str, set[str]]:
        program = "uv" if re.search(r"\buv pip install", line) else "pip"
        own = {"--python", "--system", "--no-cache", "--no-cache-dir", "--editable"}
        return program, set(re.findall(r"--[\w-]+", line)) - own

    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("$(INSTALLED): pyproject.toml")[2].partition("\n\n")[0]
    wanted = [install_of(line) for line in recipe.splitlines() if "pip install" in line]
    found = [install_of(step) for step in steps_of("installed") if "pip install" in step]
    assert len(wanted) == 3
    assert [program for program, _ in found] == [program for program, _ in wanted]
    assert all(options <= more for (_, options), (_, more) in zip(wanted, found, strict=True))
    locked_uv = r"sed -n '/^uv==/,/[^\\]$/p' requirements.lock"
    assert locked_uv in text_of("Dockerfile")
    assert locked_uv.replace("$", "$$") in makefile


def test_what_a_stage_adds_has_hashes_and_no_other_version_than_the_lock() -> None:
    added = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", text_of("requirements.lock"), re.MULTILINE))
    assert {"boto3", "psycopg2-binary"} <= added.keys()
    everywhere = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    both = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", everywhere, re.MULTILINE))
    assert {name: version for name, version in added.items() if both.get(name, version) != version} == {}
    (install,) = [step for step in steps_of("mlflow") if "pip install" in step]
    assert "--require-hashes" in install
    named = [
        word for stage in stages() for step in steps_of(stage) for word in step.split() if "==" in word and "uv" not in word
    ]
    assert named == []  # every version is in a lock


def test_the_images_commands_are_ones_of_a_shell_and_its_user_is_not_root() -> None:
    for name, stage in stages().items():
        for step in steps_of(name):
            subprocess.run(["sh", "-n", "-c", step], check=True)
        users = [rest for word, rest in stage if word == "USER"]
        assert users[-1:] == ([] if name in ("gpu", "cpu") else ["1000:1000"])
    assert any("RAY_AUTH_MODE=token" in rest.split() for word, rest in stages()["installed"] if word == "ENV")


def copy(sources: list[str], target: Path) -> None:
    """What COPY does with the files that are sent to the builder: several go into the target, a folder's content becomes it."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(REPOSITORY)
        return {name for name in names if not sent_to_the_builder(str(inside / name))}

    for source in sources:
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, target, ignore=left_out)
        else:
            shutil.copy(REPOSITORY / source, target)


@pytest.fixture
def root_of_image(tmp_path: Path) -> Path:
    """A root folder in which the image's steps have run, but for those that need the network or the rights of root.

    Its Python, in `python`, sees what the lock has installed here, and has nothing else until the steps install the package.
    """
    root, python = tmp_path / "root", tmp_path / "root" / "python"
    venv.create(python, symlinks=True)
    (site,) = python.glob("lib/*/site-packages")
    (site / "locked.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    environment = {"PATH": f"{python / 'bin'}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}", "UV_OFFLINE": "1"}
    left_out, here = [], root
    for word, rest in stages()["installed"]:
        if word == "WORKDIR":
            here = root / rest.removeprefix("/")
            here.mkdir()
        elif word == "COPY":
            *sources, target = rest.split()
            copy(sources, here / target)
        elif word == "RUN":
            for step in map(str.strip, rest.split("&&")):
                if step.startswith(("apt-get", "rm", "useradd")) or "--require-hashes" in step:
                    left_out.append(step.split()[0])
                else:
                    step = step.replace("--system", f"--python {python / 'bin' / 'python'}")
                    subprocess.run(["sh", "-c", step], cwd=here, env=environment, check=True, capture_output=True, timeout=300)
    assert left_out == ["apt-get", "apt-get", "rm", "python", "uv", "useradd"]
    return root


def test_in_a_clean_root_the_images_steps_install_a_package_that_plans_the_jobs_sweep(root_of_image: Path) -> None:
    of_uv = (root_of_image / "build" / "uv.lock").read_text(encoding="utf-8")
    assert re.findall(r"^([\w-]+)==", of_uv, re.MULTILINE) == ["uv"]
    assert "--hash=sha256:" in of_uv
    entry_point = loaded("kuberay/job.yaml")["spec"]["entrypoint"]
    places = {"/app/": f"{root_of_image / 'app'}/", RESULTS: str(root_of_image / "results")}
    for there, here in places.items():
        entry_point = entry_point.replace(there, here)
    program, *arguments = shlex.split(entry_point)
    command = [str(root_of_image / "python" / "bin" / program), *arguments, "--dry-run"]
    shutil.rmtree(root_of_image / "build")  # what is installed needs nothing of it
    done = subprocess.run(
        command, cwd=root_of_image / "app", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "trial" in done.stdout


def test_images_have_the_version_of_the_package() -> None:
    named = {
        file.name: re.findall(r"vlm-rm-sweeps:([\d.]+)", file.read_text(encoding="utf-8"))
        for file in DEPLOY.rglob("*")
        if file.is_file()
    }
    assert {version for versions in named.values() for version in versions} == {own_version()}
    assert all(named[name] for name in ("Dockerfile", "cluster.yaml", "job.yaml"))


def test_no_image_names_a_registry() -> None:
    """Which one is for the user to say; without a host, the engine's own default."""
    images = [
        word
        for file in DEPLOY.rglob("*.yaml")
        for word in re.findall(r"^ *(?:- )?image: (?:&\w+ )?([^*\s]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    base = re.findall(r"^ARG BASE=(.+)$", text_of("Dockerfile"), re.MULTILINE)
    assert len(images) > 8
    assert [image for image in images + base if re.search(r"[.:]", image.rpartition("/")[0])] == []


# KubeRay

QUANTITIES = {"limits!": {"*": str}, "requests!": {"*": str}}
CONTAINER = {
    "name!": str,
    "image!": str,
    "securityContext!": {"allowPrivilegeEscalation!": bool, "capabilities!": {"drop!": [str]}},
    "env": [{"name!": str, "value!": str}],
    "envFrom": [{"secretRef!": {"name!": str, "optional": bool}}],
    "resources!": QUANTITIES,
    "volumeMounts!": [{"name!": str, "mountPath!": str}],
}
POD = {
    "containers!": [CONTAINER],
    "securityContext!": {
        "runAsNonRoot!": bool,
        "runAsUser!": int,
        "runAsGroup!": int,
        "fsGroup!": int,
        "seccompProfile!": {"type!": str},
    },
    "volumes!": [{"name!": str, "persistentVolumeClaim!": {"claimName!": str}}],
    "automountServiceAccountToken": bool,
    "restartPolicy": str,
    "tolerations": [{"key!": str, "operator!": str, "effect!": str}],
}
TEMPLATE = {"spec!": POD}
CLUSTER = {
    "rayVersion!": str,
    "authOptions!": {"mode!": str, "secretName!": str},
    "enableInTreeAutoscaling!": bool,
    "autoscalerOptions!": {"version!": str, "idleTimeoutSeconds!": int},
    "headGroupSpec!": {"rayStartParams!": {"*": str}, "template!": TEMPLATE},
    "workerGroupSpecs!": [
        {
            "groupName!": str,
            "replicas!": int,
            "minReplicas!": int,
            "maxReplicas!": int,
            "rayStartParams!": {"*": str},
            "template!": TEMPLATE,
        }
    ],
}
JOB = {
    "entrypoint!": str,
    "backoffLimit!": int,
    "shutdownAfterJobFinishes!": bool,
    "ttlSecondsAfterFinished!": int,
    "rayClusterSpec!": CLUSTER,
}
"""The part of KubeRay's and Kubernetes' forms that is used here, ray.io/v1; `!` marks what must be there."""


def misfits(found: Any, form: Any, place: str = "spec") -> list[str]:
    """List where YAML differs from its form: keys that are not known or missing, and values of another type."""
    if isinstance(form, list):
        if not isinstance(found, list):
            return [f"{place}: expected a list"]
        return [each for number, item in enumerate(found) for each in misfits(item, form[0], f"{place}[{number}]")]
    if not isinstance(form, dict):
        return [] if type(found) is form else [f"{place}: expected {form.__name__}, got {found!r}"]
    if not isinstance(found, dict):
        return [f"{place}: expected keys"]
    if "*" in form:
        return [each for key, value in found.items() for each in misfits(value, form["*"], f"{place}.{key}")]
    known = {key.removesuffix("!"): part for key, part in form.items()}
    missing = [f"{place}: {key[:-1]} is missing" for key in form if key.endswith("!") and key[:-1] not in found]
    unknown = [f"{place}: {key} is not known" for key in found if key not in known]
    inner = [each for key in found.keys() & known.keys() for each in misfits(found[key], known[key], f"{place}.{key}")]
    return missing + unknown + inner


def test_the_manifests_have_the_form_of_kuberay() -> None:
    for file, kind, form in (("cluster", "RayCluster", CLUSTER), ("job", "RayJob", JOB)):
        manifest = loaded(f"kuberay/{file}.yaml")
        assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
        assert misfits(manifest["spec"], form) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backoffLimits": 3}, "spec: backoffLimits is not known"),
        ({"backoffLimit": "3"}, "spec.backoffLimit: expected int, got '3'"),
        ({"rayClusterSpec": {}}, "spec.rayClusterSpec: rayVersion is missing"),
    ],
)
def test_a_misfit_is_found(change: dict[str, Any], said: str) -> None:
    assert said in misfits(loaded("kuberay/job.yaml")["spec"] | change, JOB)


def test_the_job_has_the_cluster_of_the_other_manifest() -> None:
    assert loaded("kuberay/job.yaml")["spec"]["rayClusterSpec"] == loaded("kuberay/cluster.yaml")["spec"]


def pods_of(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    workers = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"]} | workers


def test_the_clusters_nodes_have_the_locks_ray_a_token_and_the_shared_folder() -> None:
    cluster = loaded("kuberay/cluster.yaml")["spec"]
    claim = loaded("kuberay/storage.yaml")
    assert cluster["rayVersion"] == locked("ray")
    assert cluster["authOptions"]["mode"] == "token"
    # By a pipe: other users of the machine can read arguments.
    made = f"| kubectl create secret generic {cluster['authOptions']['secretName']} --from-file=auth_token=/dev/stdin"
    assert made in text_of("kuberay/cluster.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pods = pods_of(cluster)
    assert pods.keys() == {"head", "cpu", "gpu"}
    for pod in pods.values():
        (container,) = pod["containers"]
        (volume,) = pod["volumes"]
        (mount,) = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert mount == {"name": volume["name"], "mountPath": str(Path(RESULTS).parent)}
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_groups_grow_from_what_a_sweep_needs_at_its_start_and_gpus_are_for_their_own_group() -> None:
    cluster = loaded("kuberay/cluster.yaml")["spec"]
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        # KubeRay's second autoscaler replaces pods, and restarts none.
        assert group["template"]["spec"]["restartPolicy"] == "Never"
    assert [group["minReplicas"] for group in cluster["workerGroupSpecs"]] == [1, 0]
    with_gpus = {
        name for name, pod in pods_of(cluster).items() if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
    }
    with_its_image = {name for name, pod in pods_of(cluster).items() if pod["containers"][0]["image"].endswith("-gpu")}
    assert with_gpus == with_its_image == {"gpu"}


def test_only_the_head_gets_mlflows_password() -> None:
    pods = pods_of(loaded("kuberay/cluster.yaml")["spec"])
    assert [name for name, pod in pods.items() if "envFrom" in pod["containers"][0]] == ["head"]


# Machines by SSH


def test_the_machines_are_described_as_ray_asks() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(loaded("vms.yaml"))
    validate_config(prepared)
    assert prepared["max_workers"] == len(loaded("vms.yaml")["provider"]["worker_ips"])


def test_ray_starts_on_the_machines_with_a_token_and_options_that_it_knows() -> None:
    config = loaded("vms.yaml")
    assert "~/.ray/auth_token" in config["file_mounts"]
    for kind in ("head", "worker"):
        stop, start = config[f"{kind}_start_ray_commands"]
        assert stop.endswith(".venv/bin/ray stop")
        before, _, options = start.partition(" start ")
        assert "RAY_AUTH_MODE=token" in before.split()
        check_ray_start(shlex.split(options))
    assert "--dashboard-host" not in text_of("vms.yaml")


def test_the_archive_of_the_repository_is_made_and_unpacked_where_it_is_installed() -> None:
    config, text = loaded("vms.yaml"), text_of("vms.yaml")
    (sent,) = [there for there, here in config["file_mounts"].items() if here == "build/vlm-rm-sweeps.tar.gz"]
    assert "git archive --prefix=vlm-rm-sweeps/ --output=build/vlm-rm-sweeps.tar.gz HEAD" in text
    assert f"tar -xzf {sent} -C ~" in config["setup_commands"]
    assert "make -C ~/vlm-rm-sweeps install" in config["setup_commands"]


# Slurm

HOSTNAME = """#!/bin/sh
echo "10.0.0.1 10.1.0.1 "
"""
SRUN = """#!/bin/sh
stat -c %a "$RAY_AUTH_TOKEN_PATH" > token-mode
wc -c < "$RAY_AUTH_TOKEN_PATH" > token-size
printf '%s\\n' "$RAY_AUTH_MODE" "$@" > given
"""


@pytest.fixture
def slurm_job(tmp_path: Path) -> Path:
    """A folder in which the script has run, with an `srun` that writes down what it is given, on a node of two addresses."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, content in (("srun", SRUN), ("hostname", HOSTNAME)):
        (programs / name).write_text(content)
        (programs / name).chmod(0o700)
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
    }
    sweep = str(REPOSITORY / "sweeps" / "quickstart.yaml")
    command = ["bash", str(DEPLOY / "slurm.sh"), sweep, "--set", "pool.gpus=1"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    return tmp_path


def test_slurm_starts_ray_on_each_node_and_the_sweep_on_the_head(slurm_job: Path) -> None:
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    mode, *given = (slurm_job / "given").read_text().splitlines()
    of_ray, of_sweep = given[given.index("symmetric-run") + 1 : given.index("--")], given[given.index("--") + 1 :]
    assert mode == "token"
    assert "--cpus-per-task=16" in given
    assert {"--address=10.0.0.1:6379", "--min-nodes=3"} <= set(of_ray)
    check_ray_start(curate_and_validate_ray_start_args(of_ray))
    assert of_sweep[:3] == ["env", "RAY_ADDRESS=10.0.0.1:6379", "vlm-rm"]
    assert of_sweep[-4:] == ["--resume", "--yes", "--set", "pool.gpus=1"]
    assert of_sweep[of_sweep.index("--results") + 1] == str(slurm_job / "results")
    parse(of_sweep[3:])


def test_the_token_of_a_slurm_job_is_its_users_alone_and_ends_with_it(slurm_job: Path) -> None:
    assert (slurm_job / "token-mode").read_text().strip() == "600"
    assert int((slurm_job / "token-size").read_text()) > 64
    assert list((slurm_job / "home" / ".ray").iterdir()) == []
    assert not any(len(word) >= 64 and "/" not in word for word in (slurm_job / "given").read_text().split())


def test_the_slurm_script_is_bash_and_its_job_is_put_into_the_queue_again() -> None:
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)
    options = re.findall(r"^#SBATCH --([\w-]+)", text_of("slurm.sh"), re.MULTILINE)
    assert {"requeue", "signal", "nodes", "cpus-per-task", "exclusive"} <= set(options)
    # Slurm reads no options after the first command.
    assert text_of("slurm.sh").rindex("#SBATCH") < text_of("slurm.sh").index("set -euo")


# Services beside a cluster

OF_SERVICES = {
    "image",
    "build",
    "restart",
    "environment",
    "volumes",
    "healthcheck",
    "command",
    "depends_on",
    "ports",
}
_SECRET = re.compile(r"password|secret|token", re.IGNORECASE)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose = loaded("services/compose.yaml")
    assert compose.keys() == {"name", "services", "volumes"}
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_the_services_have_the_form_of_compose(services: dict[str, dict[str, Any]]) -> None:
    assert services.keys() == {"postgres", "s3", "bucket", "mlflow", "prometheus", "grafana"}
    for service in services.values():
        assert "image" in service
        assert service.keys() <= OF_SERVICES
        assert set(service.get("depends_on", [])) <= services.keys()
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())


def test_services_are_reached_from_this_machine_alone(services: dict[str, dict[str, Any]]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_secrets_of_services_come_from_the_environment(services: dict[str, dict[str, Any]]) -> None:
    named = [(key, value) for each in services.values() for key, value in each.get("environment", {}).items()]
    secret = [value for key, value in named if _SECRET.search(key) or "://mlflow:" in value]
    assert len(secret) >= 4
    assert [value for value in secret if not re.search(r"\$\{[A-Z0-9_]+:\?", value)] == []
    assert not any(_SECRET.search(str(service.get("command"))) for service in services.values())


def test_what_services_mount_exists(services: dict[str, dict[str, Any]]) -> None:
    volumes = loaded("services/compose.yaml")["volumes"].keys()
    for service in services.values():
        for volume in service.get("volumes", []):
            source, *rest = volume.split(":")
            if source.startswith("."):
                assert (DEPLOY / "services" / source).exists(), volume
                assert rest[-1] == "ro"
            else:
                assert source in volumes or source == "/tmp/ray", volume


def test_mlflows_image_has_the_driver_that_its_database_is_opened_with(services: dict[str, dict[str, Any]]) -> None:
    """SQLAlchemy takes another one for `postgresql://` alone, and has changed which."""
    scheme = services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].partition("://")[0]
    driver = scheme.partition("+")[2]
    assert re.search(rf"^{driver}(-binary)?==", text_of("requirements.lock"), re.MULTILINE)


def test_mlflows_server_is_built_from_the_lock_and_its_options_are_its_own(services: dict[str, dict[str, Any]]) -> None:
    from mlflow.cli import server

    for name in ("bucket", "mlflow"):
        build = services[name]["build"]
        assert services[name]["image"] == f"vlm-rm-sweeps:{own_version()}-{build['target']}"
        assert (DEPLOY / "services" / build["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / build["dockerfile"]).is_file()
        assert build["target"] in stages()
    program, command, *options = shlex.split(services["mlflow"]["command"])
    assert (program, command) == ("mlflow", "server")
    server.make_context("server", options)
    compile(services["bucket"]["command"][-1], "bucket", "exec")


def test_grafana_has_the_settings_of_the_dashboard_command(services: dict[str, dict[str, Any]]) -> None:
    from vlm_rm_sweeps.dashboard.watch import DASHBOARDS, Cluster, grafana_environment

    known = grafana_environment(Cluster(Path("/tmp/ray/session_latest"), []), Path("data"), 9090, 3000)
    given = services["grafana"]["environment"]
    assert given.keys() - known.keys() == {"GF_SECURITY_ADMIN_PASSWORD"}
    assert given["RAY_DASHBOARDS"] == known["RAY_DASHBOARDS"]
    for key in ("GF_PATHS_PROVISIONING", "VLM_RM_DASHBOARDS"):
        inside = Path(given[key]).relative_to("/vlm-rm")
        assert DASHBOARDS / "grafana" / inside == Path(known[key])
    assert all(given[key] == known[key] for key in given if key.startswith(("GF_ANALYTICS", "GF_NEWS")))


def test_prometheus_reads_the_nodes_where_ray_writes_them(services: dict[str, dict[str, Any]]) -> None:
    config = yaml.safe_load((REPOSITORY / "vlm_rm_sweeps/dashboard/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    (file,) = config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert any(volume.startswith(f"{Path(file).parent}:{Path(file).parent}:") for volume in services["prometheus"]["volumes"])


# For real


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def started_head(environment: dict[str, str], folder: str, dashboard: int) -> tuple[subprocess.Popen[str], str | None]:
    """Start the head of a cluster: its process, and why it did not start; None if it did."""
    options = [f"--port={free_port()}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}", "--num-cpus=3"]
    options += [f"--{name}-port={free_port()}" for name in ("dashboard-agent-listen", "ray-client-server", "metrics-export")]
    # Not `ray stop` at the end, which would stop every Ray of this machine.
    head = subprocess.Popen(
        [BIN / "ray", "start", "--head", "--block", *options],
        env=environment,
        cwd=folder,  # of the jobs, too, which take modules that they import from there for the user's own
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert head.stdout
    said = []
    for line in head.stdout:
        if "Ray runtime started" in line:
            return head, None
        said.append(line)
    return head, "".join(said[-20:])


@pytest.fixture
def cluster_with_token() -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray cluster of this machine that asks for a token: the address for jobs, and the environment of who may submit them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps it on the loopback address
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    # With a short path, for sockets.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        for tries_left in (2, 1, 0):  # Ray's own processes have 30 s to start, which a busy machine may exceed
            dashboard = free_port()
            head, said = started_head(environment, folder, dashboard)
            if said is None:
                break
            head.wait()
            if not tries_left:
                pytest.fail(said)
        yield f"http://127.0.0.1:{dashboard}", environment
        head.terminate()
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            head.kill()  # its processes end with it
            head.wait()


@pytest.mark.slow
def test_the_jobs_entry_point_runs_as_a_ray_job_and_a_retry_finds_its_results(
    cluster_with_token: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = cluster_with_token
    file, results = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(json.dumps(SWEEP | {"trial": {"cpus": 1, "retries": 0}}))
    places = {"/app/sweeps/model_scaling.yaml": str(file), RESULTS: str(results)}
    entry_point = [places.get(word, word) for word in shlex.split(loaded("kuberay/job.yaml")["spec"]["entrypoint"])]

    def submitted(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "ray"), "job", "submit", f"--address={address}", "--", *entry_point]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600)

    refused = submitted(environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    assert refused.returncode != 0
    assert not results.exists()
    for attempt in ("the first", "a retry"):
        done = submitted(environment)
        assert done.returncode == 0, f"{attempt}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    (folder,) = results.glob("small-*")
    assert (pd.read_csv(folder / "trials.csv")["status"] == "finished").all()


@pytest.mark.slow
def test_a_job_that_was_let_go_is_watched_from_elsewhere_stopped_and_resumed(
    cluster_with_token: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    """As with a laptop that was closed: the table is that of a sweep that nobody stopped."""
    address, environment = cluster_with_token
    file = tmp_path / "small.yaml"
    keys = {"steps": 8192, "checkpoint_every": 256, "videos": False, "trial": {"cpus": 1, "retries": 0}}
    file.write_text(json.dumps(SWEEP | keys))

    def ray_job(*words: str) -> str:
        # The address comes before what a command is given.
        command = [str(BIN / "ray"), "job", words[0], f"--address={address}", *words[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def submit(name: str, results: Path, *options: str) -> None:
        sweep = ["vlm-rm", "sweep", str(file), "--results", str(results), "--resume", "--yes"]
        ray_job("submit", f"--submission-id={name}", *options, "--", *sweep)

    def standing() -> dict[str, Any]:
        """What another machine reads, which runs no Ray and has no token."""
        elsewhere = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
        command = [str(BIN / "vlm-rm"), "status", "--results", str(tmp_path / "results"), "--json"]
        done = subprocess.run(command, env=elsewhere, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    submit("first", tmp_path / "results", "--no-wait")
    ends = time.monotonic() + 300
    while not list(tmp_path.glob("results/small-*/trials/*/step-*/checkpoint.json")):
        assert time.monotonic() < ends, ray_job("logs", "first")
        time.sleep(0.2)
    running = standing()
    assert running["state"] == "running", running
    ray_job("stop", "first")
    assert standing()["state"] != "ended"
    submit("second", tmp_path / "results")
    assert standing()["state"] == "ended"
    submit("undisturbed", tmp_path / "undisturbed")
    (found,), (expected,) = (list((tmp_path / name).glob("small-*/trials.csv")) for name in ("results", "undisturbed"))
    resumed, whole = (pd.read_csv(table).drop(columns="steps_per_second") for table in (found, expected))
    assert (resumed["status"] == "finished").all()
    pd.testing.assert_frame_equal(resumed, whole)
