"""Find files of the Hugging Face hub, or in its client's cache, for `weights="hf-hub:OWNER/NAME"`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.errors import WeightsError

__all__ = ["CONFIG", "FILES", "HUB", "hub_file", "hub_folder"]

HUB = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin")
"""The usual names of a repository's weights; first the file that cannot hold code."""
CONFIG = "config.yaml"
"""The facts of a saved model, in a folder or a repository; the key `weights` names the file of weights."""


def hub_file(weights: str) -> Path:
    """Return the file of a repository's weights, fetched unless it is in the cache.

    Args:
        weights: "hf-hub:OWNER/NAME", or "hf-hub:OWNER/NAME@REVISION" for a branch, a tag or a commit.

    Raises:
        WeightsError: the repository does not exist, has no weights, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = weights.removeprefix(HUB).partition("@")
    for name in FILES:
        try:
            return Path(hf_hub_download(repository, name, revision=revision or None))
        except LocalEntryNotFoundError as cause:
            missing: Exception = cause  # offline: another file may be in the cache
        except EntryNotFoundError as cause:
            missing = cause
        except (HfHubHTTPError, HFValidationError, OSError) as cause:
            raise _make_fetch_error(weights, cause) from cause
    raise _make_fetch_error(weights, missing) from missing


def hub_folder(name: str, **options: Any) -> Path:
    """Return the folder of a repository that holds a saved model, fetched unless it is in the cache.

    Args:
        name: "hf-hub:OWNER/NAME" as for `hub_file`.
        options: as for `huggingface_hub.snapshot_download`.

    Raises:
        WeightsError: the repository does not exist, holds another program's weights, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.removeprefix(HUB).partition("@")
    if revision:
        options["revision"] = revision
    try:
        found = Path(snapshot_download(repository, allow_patterns=[CONFIG], **options))
        if (found / CONFIG).is_file():  # without it, its weights are another program's, and may be large
            return Path(snapshot_download(repository, allow_patterns=["*.safetensors", CONFIG, "*.md"], **options))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as cause:
        reason = str(cause).strip().partition("\n")[0]
        raise WeightsError(
            f"{name} could not be fetched: {type(cause).__name__}: {reason} Give hf-hub:OWNER/NAME, a repository with a model "
            "of zoo.save. Without a network, fetch it elsewhere and pass the folder's path."
        ) from cause
    raise WeightsError(
        f"{name} holds no saved model: it has no {CONFIG}. `zoo.push_to_hub` writes one; weights alone are for "
        f"zoo.load_weights(model, {name!r}), of a model that zoo.build made."
    )


def _make_fetch_error(weights: str, cause: Exception) -> WeightsError:
    reason = str(cause).strip().partition("\n")[0]
    return WeightsError(
        f"weights={weights!r} could not be fetched: {type(cause).__name__}: {reason} Give hf-hub:OWNER/NAME, a repository "
        f"with {' or '.join(FILES)}. Without a network, fetch that file elsewhere and pass its path."
    )
