"""Complete the package's metadata during a build: the README with absolute links, and the project's URLs.

Both are derived from `repository` in pyproject.toml's `[tool.hatch.metadata.hooks.custom]`. If `repository` is empty, the
links are not changed, and there are no URLs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMAGES = (".png", ".svg", ".jpg")


class ReadmeHook(MetadataHookInterface):
    """Sets the readme and the URLs, which pyproject.toml declares as dynamic; hatchling calls `update`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme and the URLs."""
        repository: str = self.config["repository"]
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, repository)}
        if repository:
            metadata["urls"] = {
                "Repository": repository,
                "Documentation": f"{repository}/tree/main/docs",
                "Changelog": f"{repository}/blob/main/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }


def with_absolute_links(text: str, repository: str) -> str:
    """Return Markdown with relative links replaced by links to a repository; unchanged if `repository` is ""."""
    if not repository:
        return text

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1].partition("#")[0].endswith(IMAGES) else "blob"
        return f"]({repository}/{kind}/main/{link[1]})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", absolute, text)
