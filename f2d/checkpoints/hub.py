"""Checkpoints on the Hugging Face Hub: fetched into its cache, and used from there where the Hub does not answer."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_]|[.-](?=[A-Za-z0-9_]))*"  # the Hub allows no "--", "..", nor either at an end
_ID = re.compile(rf"({_PART}/{_PART})(?:@(.+))?")


_COMMIT = re.compile("[0-9a-f]{40}")


class HubId(NamedTuple):
    """name: owner/name of a repository. revision: a branch, tag or commit, None for the newest."""

    name: str
    revision: str | None


def parse(text: object) -> HubId | None:
    """``owner/name`` or ``owner/name@revision``; None for what can be no repository's name."""
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
    """The folder in the Hub's cache that holds `files` of one commit of a repository; nothing else is downloaded.

    token: of a user who may read it, by default the one logged in with. cache_dir: another place than HF_HOME's.
    local_files_only: as HF_HUB_OFFLINE=1, take what is there. force_download: take nothing that is there.

    Of a commit, named in full, what is in the cache is used at once. A Hub that does not answer is asked once, for
    HF_HUB_ETAG_TIMEOUT seconds (10): what was fetched before is used.
    FileNotFoundError where nothing was, or the Hub has no such repository, revision or file, or does not show it.
    """
    if local_files_only and force_download:
        raise ValueError("local_files_only and force_download exclude one another")
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    # the base class of the HTTP library's errors, whichever library this version of the client uses
    failures: tuple[type[Exception], ...] = (OSError, EntryNotFoundError, *HfHubHTTPError.__bases__)
    name, revision = repository
    if revision is not None and _COMMIT.fullmatch(revision) and not force_download:  # what it holds never changes
        place = None if cache_dir is None else Path(cache_dir)
        cached = [try_to_load_from_cache(name, file, cache_dir=place, revision=revision) for file in files]
        if all(isinstance(path, str) for path in cached):
            return Path(str(cached[0])).parent
    refusal: Exception | None = None
    if not local_files_only:
        # hf_hub_download tries a silent Hub six times, for minutes; this asks once whether it is worth while
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
        for file in files[1:]:  # of the same commit, whose name the folder has
            hf_hub_download(name, file, revision=folder.name, **options)
    except LocalEntryNotFoundError as error:
        if refusal is not None:
            asked = _why(refusal, repository, file)[0]
        else:
            asked = "nothing is to be downloaded" if local_files_only else f"{constants.ENDPOINT} is no Hub ({error})"
        raise FileNotFoundError(f"{asked}, and its {file} is not in the cache") from (refusal or error)
    except failures as error:
        # what else the operating system says, of a full disk or a folder that is not to be written, says it all
        if isinstance(error, OSError) and not isinstance(error, HfHubHTTPError):
            raise
        raise FileNotFoundError(_why(error, repository, file)[0]) from error
    return folder


def _why(error: Exception, repository: HubId, file: str) -> tuple[str, bool]:
    """(what an answer of the Hub, or none, means, whether what is in the cache is no answer to it)."""
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
        return f"{HUB}/{name} is gated: ask for access there, and give its token (hf auth login)", False
    if isinstance(error, RepositoryNotFoundError):
        return f"{HUB} has no such repository, or it is private and needs a token (hf auth login)", False
    if isinstance(error, RevisionNotFoundError):
        return f"{HUB}/{name} has no revision {revision!r}", True
    if isinstance(error, EntryNotFoundError):
        return f"{HUB}/{name} has no {file}", True
    if isinstance(error, HfHubHTTPError):
        return f"{HUB} answers {error.response.status_code}", False
    return f"{HUB} could not be reached ({error or type(error).__name__})", False
