"""Every Python block of README.md and the documentation runs.

The blocks of one page share a namespace and a temporary working directory, as a reader
would type them one after another. A block opened with ``python no-run`` is shown only.
The examples in docstrings run as doctests (see pyproject.toml).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Code that readers see and nothing checks: keep it rare.
MOST_SKIPPED_BLOCKS = 3


@dataclass(frozen=True)
class Block:
    """One fenced block: its first line in the page, its text, and whether it runs."""

    line: int
    text: str
    runs: bool


def python_blocks(page: str) -> list[Block]:
    blocks = []
    for token in MarkdownIt().parse(page):
        language, *words = token.info.split() or [""]
        if token.type == "fence" and language in {"python", "py", "python3"}:
            assert set(words) <= {"no-run"}, f"unknown words after python: {words}"
            blocks.append(Block(token.map[0] + 1, token.content, "no-run" not in words))
    return blocks


def run_blocks(blocks: list[Block], file_name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        # Padding makes line numbers in a traceback those of the page.
        code = compile("\n" * block.line + block.text, file_name, "exec")
        exec(code, namespace)
    return namespace


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PAGES_WITH_CODE = [page for page in PAGES if python_blocks(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=page_name)
def test_code_on_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(page.read_text("utf-8"))
    run_blocks([block for block in blocks if block.runs], page_name(page))


def test_few_blocks_are_skipped() -> None:
    skipped = [
        f"{page_name(page)}:{block.line}"
        for page in PAGES_WITH_CODE
        for block in python_blocks(page.read_text("utf-8"))
        if not block.runs
    ]
    assert len(skipped) <= MOST_SKIPPED_BLOCKS, skipped


SAMPLE = """\
# Page

```python
x = 1
```

```bash
exit 1
```

- In a list:

  ```python
  y = x + 1
  ```

```python no-run
never
```
"""


def test_blocks_are_found_and_share_a_namespace() -> None:
    blocks = python_blocks(SAMPLE)
    assert [(block.line, block.runs) for block in blocks] == [
        (3, True),
        (13, True),
        (17, False),
    ]
    assert run_blocks(blocks[:2], "page.md")["y"] == 2


def test_a_broken_block_fails_with_the_line_of_the_page() -> None:
    blocks = python_blocks(SAMPLE)
    with pytest.raises(NameError) as caught:
        run_blocks(blocks, "page.md")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("page.md", 18)


def test_a_misspelt_mark_is_refused() -> None:
    with pytest.raises(AssertionError, match="norun"):
        python_blocks("```python norun\n1 / 0\n```\n")
