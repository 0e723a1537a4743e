"""Find the files of the repository `"hf-hub:OWNER/NAME"` in the cache of huggingface_hub, or download them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.errors import WeightsError

__all__ = ["CONFIG", "FILES", "HUB", "hub_file", "hub_folder"]

HUB = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin")
"""The usual names of a repository's weights file. The first is preferred, since it cannot contain code."""
CONFIG = "config.yaml"
"""The file that describes a saved model, in a folder or a repository. Its key `weights` is the name of the weights file."""


def hub_file(weights: str) -> Path:
    """Return the path of a repository's weights file, and download the file unless it is in the cache.

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
            missing: Exception = cause  # offline: the cache lacks this file, but may have the next one
        except EntryNotFoundError as cause:
            missing = cause
        except (HfHubHTTPError, HFValidationError, OSError) as cause:
            raise _make_fetch_error(weights, cause) from cause
    raise _make_fetch_error(weights, missing) from missing


def hub_folder(name: str, **options: Any) -> Path:
    """Return the local folder with the files of a repository that contains a saved model.

    Files that are not in the cache are downloaded.

    Args:
        name: "hf-hub:OWNER/NAME" or "hf-hub:OWNER/NAME@REVISION", as for `hub_file`.
        options: keyword arguments of `huggingface_hub.snapshot_download`.

    Raises:
        WeightsError: the repository does not exist, contains no saved model, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.removeprefix(HUB).partition("@")
    if revision:
        options["revision"] = revision
    try:
        found = Path(snapshot_download(repository, allow_patterns=[CONFIG], **options))
        if (found / CONFIG).is_file():  # otherwise, do not download weights that zoo did not write
            return Path(snapshot_download(repository, allow_patterns=["*.safetensors", CONFIG, "*.md"], **options))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as cause:
        reason = str(cause).strip().partition("\n")[0]
        raise WeightsError(
            f"{name} could not be fetched: {type(cause).__name__}: {reason} Pass hf-hub:OWNER/NAME, a repository with a model "
            "that zoo.push_to_hub uploaded. If this machine is offline, download the repository on another one, and pass the "
            "folder's path."
        ) from cause
    raise WeightsError(
        f"{name} contains no saved model: it has no {CONFIG}. `zoo.push_to_hub` uploads a saved model. To load weights "
        f"alone, build a model with zoo.build and call zoo.load_weights(model, {name!r})."
    )


def _make_fetch_error(weights: str, cause: Exception) -> WeightsError:
    reason = str(cause).strip().partition("\n")[0]
    return WeightsError(
        f"weights={weights!r} could not be fetched: {type(cause).__name__}: {reason} Pass hf-hub:OWNER/NAME, a repository "
        f"with {' or '.join(FILES)}. Without a network, fetch that file elsewhere and pass its path."
    )
