"""Fetch checkpoints from the Hugging Face Hub into its cache, and use the cache if the Hub does not answer."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_]|[.-](?=[A-Za-z0-9_]))*"  # the Hub allows no "--" or "..", and neither at an end
_ID = re.compile(rf"({_PART}/{_PART})(?:@(.+))?")


_COMMIT = re.compile("[0-9a-f]{40}")


class HubId(NamedTuple):
    """A repository (owner/name) and a revision: a branch, tag or commit, or None for the newest."""

    name: str
    revision: str | None


def parse(text: object) -> HubId | None:
    """Parse ``owner/name`` or ``owner/name@revision``; return None for names that no repository can have."""
    match = _ID.fullmatch(text) if isinstance(text, str) else None
    return None if match is None or len(match[1]) > 96 else HubId(*match.groups())


def fetch(
    repository: HubId,
    files: tuple[str, ...],
    *,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the folder in the Hub's cache with `files` of one commit of a repository; nothing else is downloaded.

    token belongs to a user who may read the repository; by default it is that of the login. cache_dir replaces
    HF_HOME's cache. local_files_only uses the cache only, like HF_HUB_OFFLINE=1; force_download ignores the cache.

    For a commit named in full, cached files are used at once. If the Hub does not answer, it is asked once, for
    HF_HUB_ETAG_TIMEOUT seconds (10), and cached files are used. Raises FileNotFoundError if there are none, or if the
    Hub has no such repository, revision or file, or does not show it.
    """
    if local_files_only and force_download:
        raise ValueError("local_files_only and force_download are mutually exclusive")
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    # the base class of the HTTP library's errors, for either library that versions of the client use
    failures: tuple[type[Exception], ...] = (OSError, EntryNotFoundError, *HfHubHTTPError.__bases__)
    name, revision = repository
    # the content of a commit never changes
    if revision is not None and _COMMIT.fullmatch(revision) and not force_download:
        place = None if cache_dir is None else Path(cache_dir)
        cached = [try_to_load_from_cache(name, file, cache_dir=place, revision=revision) for file in files]
        if all(isinstance(path, str) for path in cached):
            return Path(str(cached[0])).parent
    refusal: Exception | None = None
    if not local_files_only:
        # hf_hub_download tries an unresponsive Hub six times, for minutes, so this asks once before
        try:
            get_hf_file_metadata(hf_hub_url(name, files[0], revision=revision), token=token)
        except failures as error:
            reason, is_final = _why(error, repository, files[0])
            if is_final or force_download:
                raise FileNotFoundError(reason) from error
            refusal, local_files_only = error, True
    options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    options |= {"library_name": "f2d", "force_download": force_download}
    file = files[0]
    try:
        folder = Path(str(hf_hub_download(name, file, revision=revision, **options))).parent
        for file in files[1:]:  # from the same commit, whose name the folder has
            hf_hub_download(name, file, revision=folder.name, **options)
    except LocalEntryNotFoundError as error:
        if refusal is not None:
            asked = _why(refusal, repository, file)[0]
        else:
            asked = "downloads are disabled" if local_files_only else f"{constants.ENDPOINT} is not a Hub ({error})"
        raise FileNotFoundError(f"{asked}, and its {file} is not in the cache") from (refusal or error)
    except failures as error:
        # other errors of the operating system, such as a full disk, explain themselves
        if isinstance(error, OSError) and not isinstance(error, HfHubHTTPError):
            raise
        raise FileNotFoundError(_why(error, repository, file)[0]) from error
    return folder


def _why(error: Exception, repository: HubId, file: str) -> tuple[str, bool]:
    """Return (the meaning of the Hub's error, whether it rules out using the cache)."""
    from huggingface_hub.constants import ENDPOINT as HUB
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, revision = repository
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set", False
    if isinstance(error, GatedRepoError):
        return f"{HUB}/{name} is gated: request access there, then log in (hf auth login) or pass a token", False
    if isinstance(error, RepositoryNotFoundError):
        return f"{HUB} has no such repository, or it is private and needs a token (hf auth login)", False
    if isinstance(error, RevisionNotFoundError):
        return f"{HUB}/{name} has no revision {revision!r}", True
    if isinstance(error, EntryNotFoundError):
        return f"{HUB}/{name} has no {file}", True
    if isinstance(error, HfHubHTTPError):
        return f"{HUB} answers {error.response.status_code}", False
    return f"{HUB} could not be reached ({error or type(error).__name__})", False
