"""A shared tree in a repository of the hub: its files are sent first, then one commit names them.

So a repository is whole at every commit. What a killed call has sent the hub keeps for a while, and
does not ask for again.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from stx_mine import __version__, progress
from stx_mine.errors import ArtifactError, ConfigError, one_line
from stx_mine.inputs.hub_access import hub_problem
from stx_mine.stages.transfer.hub_address import HubAddress
from stx_mine.stages.transfer.shared_tree import SharedTree, TreeState, TreeStorage

_WAY_OUT = "write the same tree with --to DIR"
_LOGIN = "set HF_TOKEN, or log in with `hf auth login`"
# Files that are sent between two changes of the progress line.
_AT_ONCE = 8
# That of the library for HTTP, whichever it is, is the base of those of the hub's.
_HTTP_ERRORS = tuple(one for one in HfHubHTTPError.__bases__ if issubclass(one, Exception))
_OF_THE_HUB: tuple[type[Exception], ...] = (*_HTTP_ERRORS, OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class HubTree(TreeStorage):
    """A shared tree at one commit of the hub."""

    shown: str

    def place(self, name: str) -> str:
        """The repository."""
        return self.shown

    def receive(self, name: str, folder: Path, file: str, expected: str) -> None:
        """Fetch one file, unless it is there already.

        Raises:
            ArtifactError: What came is not what the manifest says.
            ConnectionError: The hub did not answer, which may pass.
        """
        try:
            super().receive(name, folder, file, expected)
        except _HTTP_ERRORS as error:
            raise ConnectionError(one_line(error)) from error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        with _told(self.shown, "run the same command again"):
            yield

    def session(self) -> AbstractContextManager[None]:
        """The library shows no progress of its own meanwhile."""
        return _quiet()


@dataclass(frozen=True)
class HubPlace:
    """A repository to publish in.

    Attributes:
        address: Its address.
        is_public: Whether everybody may see it.
        api: The hub.
    """

    address: HubAddress
    is_public: bool
    api: HfApi

    @classmethod
    def open(cls, address: HubAddress, is_public: bool) -> "HubPlace":
        """Reach the hub, with the token of the environment or of its own login.

        Raises:
            ConfigError: It does not answer, there is no token, or a commit is named.
        """
        if address.revision is not None:
            raise ConfigError(
                f"expected {address.url}, found a revision, {address.revision!r}; leave it out: "
                "the newest one is published to"
            )
        if problem := hub_problem():
            raise ConfigError(f"the hub cannot be reached: {problem}; {_WAY_OUT}")
        if get_token() is None:
            raise ConfigError(
                f"publishing on the hub needs a token that may write, found none; {_LOGIN}, or "
                f"{_WAY_OUT}"
            )
        return cls(address, is_public, HfApi())

    @property
    def _repo(self) -> dict[str, Any]:
        return {"repo_id": self.address.repo, "repo_type": self.address.repo_type}

    @property
    def visibility(self) -> str:
        """Who sees it."""
        with _told(self.address.url, _WAY_OUT):
            info = self.api.repo_info(**self._repo)
        return "public" if info.private is False else "private"

    def state(self) -> TreeState:
        """What lies there; the repository is made where it is missing.

        Raises:
            ConfigError: The hub does not answer, or the token may not write.
            ArtifactError: It is public, and --public is not given.
        """
        with _told(self.address.url, _WAY_OUT):
            try:
                info = self.api.repo_info(**self._repo)
            except RepositoryNotFoundError:
                # Also what the hub says of what the token may not see.
                self.api.create_repo(**self._repo, private=not self.is_public, exist_ok=True)
                info = self.api.repo_info(**self._repo)
        if info.private is False and not self.is_public:
            raise ArtifactError(
                f"{self.address.url} is public, expected a private one; give --public to publish "
                "for everybody, or make it private in its settings"
            )
        commit = str(info.sha)
        return replace(HubTree(self.address.at(commit), self.address.url).state(), commit=commit)

    def put(
        self, tree: SharedTree, files: Sequence[str], marks: dict[str, bytes], state: TreeState
    ) -> None:
        """Send files and cards, and name them in one commit.

        Raises:
            ConfigError: The hub does not answer, or the token may not write.
        """
        with _told(self.address.url, "run the same command again, it continues"), _quiet():
            added = [CommitOperationAdd(file, str(tree.of.file(file))) for file in files]
            total = tree.num_bytes(files, {})
            with progress.step(f"sending {tree.name}", total, "bytes") as counted:
                for start in range(0, len(added), _AT_ONCE):
                    some = added[start : start + _AT_ONCE]
                    self.api.preupload_lfs_files(**self._repo, additions=some, free_memory=False)
                    counted.advance(sum(one.upload_info.size for one in some))
            self.api.create_commit(
                **self._repo,
                operations=[
                    *added,
                    *(CommitOperationAdd(path, content) for path, content in marks.items()),
                    *(CommitOperationDelete(path) for path in tree.stale(state)),
                ],
                commit_message=f"{tree.name}, by stx-mine {__version__}",
                # Whoever has committed since is not overwritten.
                parent_commit=state.commit,
            )


def open_hub_tree(address: HubAddress) -> HubTree:
    """The tree in a repository, at the commit that its address names now.

    Raises:
        ConfigError: The hub does not answer, or there is no such repository.
        ArtifactError: It holds nothing that was shared by stx-mine.
    """
    if problem := hub_problem():
        raise ConfigError(
            f"the hub cannot be reached: {problem}; fetch from a folder that `publish --to` wrote, "
            "as in `stx-mine fetch DIR`"
        )
    with _told(address.url, "check the name and the network, then run the same command again"):
        info = HfApi().repo_info(
            address.repo, repo_type=address.repo_type, revision=address.revision
        )
    tree = HubTree(address.at(str(info.sha)), address.url)
    if not tree.names():
        read = f"embed {address.url}" if address.is_dataset else f"embed --model {address.repo}"
        raise ArtifactError(
            f"{address.url} holds nothing that `stx-mine publish` sent there; what others made is "
            f"read as it is, as by `stx-mine {read}`"
        )
    return tree


@contextmanager
def _quiet() -> Iterator[None]:
    """The library shows no progress of its own meanwhile."""
    was_quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_quiet:
            enable_progress_bars()


@contextmanager
def _told(url: str, way_out: str) -> Iterator[None]:
    """Say what is wrong in one line where the hub refuses, or does not answer.

    Args:
        url: The repository.
        way_out: What to do where the hub is at fault.

    Raises:
        ConfigError: It does.
    """
    try:
        yield
    except _OF_THE_HUB as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if status == 401 and get_token() is not None:
            problem = "the hub rejects the token (401)"
            cure = f"make another one in its settings and {_LOGIN}; or {way_out}"
        elif status == 403:
            problem = f"the hub does not allow that at {url} with this token (403)"
            cure = f"{_LOGIN}, with one that may; or {way_out}"
        elif isinstance(error, RepositoryNotFoundError):
            problem = f"the hub knows no {url}, or nothing that the token may see ({status})"
            cure = f"check the name, and {_LOGIN} where it is private"
        else:
            problem = f"the hub refused {url}, or did not answer ({_words(error)})"
            cure = way_out
        raise ConfigError(f"{problem}; {cure}") from error


def _words(error: BaseException) -> str:
    """What the library said, and what was the reason of that."""
    reason = error.__cause__ if isinstance(error, RuntimeError) else None
    return (one_line(error) + (f": {one_line(reason)}" if reason else ""))[:300]
