"""The pages of the README and the documentation, and the blocks in them."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(str(page.relative_to(REPOSITORY)) for page in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")))
# A comment above a block says what it needs (a GPU, results of a sweep, ...), or that the tests run it: `<!-- needs: gpu -->`.
_BLOCK = re.compile(r"(?:^<!-- (needs|runs)(?:: ([\w, ]+))? -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    needs: str
    runs: bool

    @property
    def file(self) -> str | None:
        """The file as which the page asks its readers to save the block: its first line is a comment with the name."""
        named = re.match(r"# (\w+\.(?:py|yaml))\n", self.text)
        return named[1] if named else None


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks_of(page: str, language: str | None = None) -> list[Block]:
    found = [
        Block(language, text, needs if mark == "needs" else "", mark == "runs")
        for mark, needs, language, text in _BLOCK.findall(text_of(page))
    ]
    return [block for block in found if language in (None, block.language)]


def without_blocks(page: str) -> str:
    return _BLOCK.sub("", text_of(page))
