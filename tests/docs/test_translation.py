"""The Chinese README is in step with the English one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    """The targets of all links and pictures, but for those to the other language."""
    found = re.findall(r"\]\(([^)]+)\)", text)
    return [target for target in found if target not in (ENGLISH, CHINESE)]


def test_the_chinese_readme_has_the_same_code_links_and_sections() -> None:
    english, chinese = read(ENGLISH), read(CHINESE)
    blocks = re.compile(r"^```\w+\n.*?^```$", re.M | re.S)
    assert blocks.findall(chinese) == blocks.findall(english)
    assert links(chinese) == links(english)
    depths = re.compile(r"^(#+) ", re.M)
    assert depths.findall(chinese) == depths.findall(english)


def test_both_name_the_same_commands_in_their_text() -> None:
    english, chinese = (set(re.findall(r"`([^`\n]+)`", read(name))) for name in (ENGLISH, CHINESE))
    assert chinese == english
