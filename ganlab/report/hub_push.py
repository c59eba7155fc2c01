"""Pushes a folder of a run to the Hugging Face hub by its own client (`ganlab export --push`), as a private model.

Decisions:
- A new repository is private: who pushes looks at it there before others do. Who is logged in is the client's business.
- What can be refused is refused before the folder is written; where the push itself fails, the folder stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ganlab.utils.errors import UserError, one_line


def check_push(repository: str) -> None:
    """Raises UserError where a folder cannot be pushed to this repository of the hub: its name, or the client."""
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    except ImportError:
        raise UserError("--push: needs huggingface-hub: pip install 'ganlab[huggingface]'") from None
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {one_line(repository, 60)}: {one_line(error)}") from None


def push_folder(folder: Path, repository: str, message: str) -> str:
    """Pushes a folder to a repository of the hub, which is made where it is missing; returns the address of the commit.

    Raises UserError where the hub refuses or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    http_errors: Any = HfHubHTTPError.__bases__  # the root of its HTTP library's errors, which it has changed
    client = huggingface_hub.HfApi()
    try:
        client.create_repo(repository, private=True, exist_ok=True)
        made: Any = client.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except (OSError, ValueError, *http_errors) as error:
        is_unknown = getattr(getattr(error, "response", None), "status_code", None) == 401
        advice = "`hf auth login` says who you are; " if is_unknown else ""
        why = one_line(error, 200).rstrip(".")
        raise UserError(f"--push {repository}: {why}; {advice}{folder} is written nevertheless") from None
    return str(made.commit_url)
