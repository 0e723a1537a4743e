"""Push a model to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from zoo.checkpoints.hub import HUB
from zoo.checkpoints.saving import save
from zoo.errors import WeightsError
from zoo.model.model import SegmentationModel

__all__ = ["push_to_hub"]


class _Upload(ModelHubMixin):
    """A model as huggingface_hub handles one: it asks for a folder, and uploads it in one commit."""

    def __init__(self, save: Callable[[Path], Path]) -> None:
        self._save = save  # what could be JSON would go into a `config.json` of the mixin's own

    def _save_pretrained(self, save_directory: Path) -> None:
        self._save(save_directory)


def push_to_hub(
    model: SegmentationModel,
    repository: str,
    *,
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    commit_message: str = "Push a model",
) -> str:
    """Save a model as `zoo.save` does, and upload it to the Hugging Face hub in one commit.

    `zoo.load("hf-hub:OWNER/NAME")` reads it.

    Args:
        model: any that `zoo.save` takes.
        repository: OWNER/NAME; made if it does not exist.
        classes: as for `zoo.save`.
        metrics: as for `zoo.save`.
        private: whether a repository that is made is private; None for the owner's default.
        token: one that may write there; by default that of `hf auth login` or the variable HF_TOKEN.
        branch: the one to commit to, by default main.
        create_pr: whether to open a pull request instead.
        commit_message: the commit's.

    Returns:
        The commit's URL.

    Raises:
        WeightsError: the hub cannot be reached, or refuses.
        OptionError: as `zoo.save`.
    """
    upload = _Upload(partial(save, model, classes=classes, metrics=metrics))
    try:
        url: str = upload.push_to_hub(
            repository.removeprefix(HUB),
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            commit_message=commit_message,
        )
    except (HfHubHTTPError, HFValidationError, OSError) as cause:
        reason = str(cause).strip().partition("\n")[0]
        raise WeightsError(
            f"{model.pairing} could not be pushed to {repository}: {type(cause).__name__}: {reason} Give OWNER/NAME, and a "
            "token that may write there (token=..., `hf auth login`, or the variable HF_TOKEN)."
        ) from cause
    return url
