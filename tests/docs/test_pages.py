"""Links lead somewhere, every page is in the site's navigation, and generated parts are what the code says."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, REPOSITORY, text_of, without_blocks

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_IN_BACKTICKS = re.compile(r"(?<!`)`([\w.*<>/-]+)`(?!`)")
FOLDERS = ("vlm_rm_sweeps", "tests", "sweeps", "examples", "analysis", "benchmarks", "deploy", "docs")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them; on pages of the API also those of names."""
    headings = (
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(text_of(page))
    )
    return {*headings, *re.findall(r"^::: (\S+)$", text_of(page), re.MULTILINE)}


def test_every_environment_variable_of_the_code_is_on_its_page() -> None:
    named = re.compile(r"[\"']((?:AWS|HF|MALLOC|MLFLOW|MUJOCO|OMP|OPENAI|PYOPENGL|RAY|SDL|TUNE|VLM_RM)_[A-Z0-9_]+)[\"']")
    code = "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "vlm_rm_sweeps").rglob("*.py"))
    for_grafana_alone = {"RAY_DASHBOARDS", "VLM_RM_DASHBOARDS"}
    found = set(named.findall(code)) - for_grafana_alone
    page = text_of("docs/reference/environment-variables.md")
    assert len(found) > 20
    assert [name for name in sorted(found) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in _LINK.findall(without_blocks(page)):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((REPOSITORY / page).parent / path).resolve() if path else REPOSITORY / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(str(target.relative_to(REPOSITORY))), link


def is_path_here(name: str) -> bool:
    """Whether what stands in backticks is meant as a file or folder of the repository, and not as a model id, an output or a key."""
    first, _, rest = name.partition("/")
    return name.endswith(".py") or bool(first and rest and (first in FOLDERS or re.search(r"\.(yaml|md|sh|j2)$", name)))


def exists_here(name: str) -> bool:
    """Whether the repository has it. `<pose>` and `*` stand for anything, and folders before the path may be left out."""
    pattern = re.sub(r"<\w+>", "*", name.rstrip("/"))
    return any(any((REPOSITORY / place).glob(f"**/{pattern}")) for place in FOLDERS) or any(REPOSITORY.glob(pattern))


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_the_repository_exist(page: str) -> None:
    named = sorted(set(_IN_BACKTICKS.findall(without_blocks(page))))
    assert [name for name in named if is_path_here(name) and not exists_here(name)] == []


def test_a_dead_path_is_found() -> None:
    for name in ("vlm_rm_sweeps/rewards/goal_baseline.py", "goal_baselin.py", "sweeps/gone_*.yaml", "tests/gone/"):
        assert is_path_here(name), name
        assert not exists_here(name), name
    for name in ("rewards/functions/goal_baseline.py", "goal_baseline.py", "sweeps/humanoid_<pose>.yaml", "tests/docs/"):
        assert is_path_here(name), name
        assert exists_here(name), name
    assert not any(
        map(is_path_here, ("embedded/small", "figures/predictive.png", "results/quickstart-<time>/", "audit_spec/..."))
    )


def test_every_page_is_in_the_navigation() -> None:
    navigation = text_of("mkdocs.yml").partition("\nnav:\n")[2]
    missing = [page for page in PAGES if page.startswith("docs/") and page.removeprefix("docs/") not in navigation]
    assert missing == []


def test_the_readme_stays_short() -> None:
    assert len(text_of("README.md").splitlines()) < 120


@pytest.fixture(scope="module")
def generate() -> Any:
    specification = importlib.util.spec_from_file_location("generate_docs", REPOSITORY / "docs" / "generate.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted(page for page in PAGES if page.startswith("docs/reference/")))
def test_generated_parts_are_what_the_code_says(page: str, generate: Any) -> None:
    written = text_of(page)
    assert generate.generated(written) == written, "run `make schema`"


def test_every_generated_part_has_a_page(generate: Any) -> None:
    written = "".join(map(text_of, PAGES))
    assert [name for name in generate.PARTS if f"<!-- generated: {name} -->" not in written] == []


def test_the_site_loads_nothing_from_elsewhere() -> None:
    settings = text_of("mkdocs.yml")
    assert "font: false" in settings
    assert "http" not in settings
    # The plugin `offline` would load one from elsewhere.
    assert "polyfills: [iframe-worker.js]" in settings
    assert (REPOSITORY / "docs" / "iframe-worker.js").is_file()
    assert "extra_javascript" not in settings
    assert "extra_css" not in settings


def test_pictures_are_shown_somewhere() -> None:
    written = "".join(map(text_of, PAGES))
    assert [file.name for file in sorted(Path(REPOSITORY / "docs" / "images").iterdir()) if file.name not in written] == []


def test_pre_commit_has_the_ruff_of_the_lock() -> None:
    locked = re.search(r"^ruff==(\S+)", text_of("requirements.lock"), re.MULTILINE)
    assert locked
    assert f"rev: v{locked[1]}\n" in text_of(".pre-commit-config.yaml")


def test_the_citation_has_the_packages_version() -> None:
    version = re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)
    assert version
    assert f"\nversion: {version[1]}\n" in text_of("CITATION.cff")
