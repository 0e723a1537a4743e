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
    """Adapts a model to huggingface_hub's mixin, which saves the model to a folder and uploads that folder in one commit."""

    def __init__(self, save: Callable[[Path], Path]) -> None:
        self._save = save  # a function, since the mixin would write an argument that is valid JSON to a `config.json`

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

    `zoo.load("hf-hub:OWNER/NAME")` loads the uploaded model.

    Args:
        model: a model that `zoo.save` accepts.
        repository: OWNER/NAME. It is created if it does not exist.
        classes: as for `zoo.save`.
        metrics: as for `zoo.save`.
        private: whether a newly created repository is private; None for the owner's default.
        token: a token with write access; by default that of `hf auth login` or of the variable HF_TOKEN.
        branch: the branch to commit to; by default main.
        create_pr: whether to open a pull request instead of committing to the branch.
        commit_message: the message of the commit.

    Returns:
        The commit's URL.

    Raises:
        WeightsError: the hub cannot be reached, or refuses the upload.
        OptionError: as for `zoo.save`.
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
            f"{model.pairing} could not be pushed to {repository}: {type(cause).__name__}: {reason} Pass OWNER/NAME, and a "
            "token with write access (token=..., `hf auth login`, or the variable HF_TOKEN)."
        ) from cause
    return url
