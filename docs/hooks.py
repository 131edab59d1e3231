"""Hooks of MkDocs: the repository's other pages and files are part of the site, and formulas become MathML.

Pages link to files of the repository as on any code host (`../sweeps/quickstart.yaml`). On the site these lie below `repository/`, the
README is the first page, and a link or picture that leads nowhere fails the strict build.
"""

import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "SECURITY.md",
    "LICENSE",
    "Makefile",
    "deploy/**/*",
    "sweeps/**/*",
    "examples/*",
    "vlm_rm_sweeps/rewards/embedded/*/*.md",
    "vlm_rm_sweeps/rewards/embedded/*/*.png",
)
_LINK = re.compile(r"(\]\()([^)#:\s]+)(#[^)\s]*)?(\))")
_FENCED = re.compile(r"^(```.*?^```|<!--.*?-->)", re.DOTALL | re.MULTILINE)
_DISPLAYED = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"\$`(.+?)`\$")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of the documentation's folder."""
    for pattern in OUTSIDE:
        for file in sorted(REPOSITORY.glob(pattern)):
            if file.is_file() and "__pycache__" not in file.parts:
                place = _on_site(str(file.relative_to(REPOSITORY)))
                files.append(File.generated(config, place, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead where files lie on the site, and write formulas as MathML; code blocks stay."""
    parts = _FENCED.split(markdown)
    return "".join(each if _FENCED.match(each) else _rewritten(each, page.file.src_uri) for each in parts)


def _rewritten(text: str, page: str) -> str:
    def relinked(link: re.Match[str]) -> str:
        if link[2].startswith("/"):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(_in_repository(page)), link[2]))
        return f"{link[1]}{posixpath.relpath(_on_site(target), posixpath.dirname(page) or '.')}{link[3] or ''}{link[4]}"

    text = _DISPLAYED.sub(lambda formula: convert(formula[1], display="block"), text)
    return _LINK.sub(relinked, _INLINE.sub(_within_a_line, text))


def _on_site(file: str) -> str:
    """Return where a file of the repository lies on the site."""
    if file == "README.md":
        return "index.md"
    return file.removeprefix("docs/") if file.startswith("docs/") else f"repository/{file}"


def _in_repository(page: str) -> str:
    """Return the file of the repository that a page of the site is."""
    if page == "index.md":
        return "README.md"
    return page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"


def _within_a_line(formula: re.Match[str]) -> str:
    # In a span, because Markdown takes a line that begins with <math> for a block.
    return f"<span>{convert(formula[1])}</span>"
