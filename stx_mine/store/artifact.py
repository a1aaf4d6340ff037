"""An artifact: one folder with plan.json written first, files in between, manifest.json last.

The *key* names what decides the bytes: declared config fields, digests of the input artifacts,
the schema version. A finished artifact of the same key is reused; a begun one is resumed; one
of another key is refused, naming what differs.
"""

import json
import shutil
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stx_mine import __version__, progress
from stx_mine.errors import ArtifactError
from stx_mine.masking import masked, masked_json
from stx_mine.settings import StageConfig, command_line_of, key_defaults, key_fields
from stx_mine.store.dataset_card import DATASET_CARD, DatasetCard
from stx_mine.store.files import json_or_empty, read_json, write_json
from stx_mine.store.intact import file_entry, remember
from stx_mine.store.kinds import KINDS
from stx_mine.store.listing import MANIFEST as MANIFEST
from stx_mine.store.listing import PLAN as PLAN
from stx_mine.store.listing import refuse_plan
from stx_mine.store.manifest import Manifest as Manifest
from stx_mine.store.manifest import digest_of as digest_of
from stx_mine.store.manifest import read_manifest as read_manifest
from stx_mine.store.manifest import remake, sealed
from stx_mine.store.manifest import require as require
from stx_mine.store.places import (
    beside,
    clear_scratch,
    refuse_foreign,
    refuse_taken,
    remove_ours,
    settle,
    swap_in,
)
from stx_mine.store.run_dir import RunDir

if TYPE_CHECKING:
    from stx_mine.store.counts import Counts


# What a command line is the same without.
_NOT_OF_IT = ("run_dir", "overwrite", "check", "task")


class Artifact:
    """The writer's view of one artifact folder."""

    def __init__(
        self,
        run: RunDir,
        name: str,
        config: StageConfig | None = None,
        *,
        inputs: dict[str, str],
        fields: dict[str, Any] | None = None,
        overwrite: bool = False,
        subfolder: str | None = None,
        grows: bool = False,
        command: str | None = None,
        place: Path | None = None,
    ) -> None:
        """Open an artifact for making, resuming or reuse.

        Args:
            run: The run directory.
            name: Name of the artifact.
            config: The config of the stage. A field of it that an earlier plan lacks, because it
                is newer than that plan, counts as being at its default.
            inputs: Digests of the artifacts that it reads, by name.
            fields: The settings that decide its bytes, JSON-ready; None for the fields of the
                config that affect it.
            overwrite: Replace an artifact of another key, once this one is finished; a view also
                one of this key.
            subfolder: For artifacts of which a run holds several.
            grows: Files may be added to the finished artifact; whatever it holds follows from
                its key, which is its digest, so that growing makes nothing stale.
            command: The word after `stx-mine` that makes it; None for that of its kind.
            place: The folder that the user named for it; None for that of the run.

        Raises:
            ArtifactError: The folder was planned with other settings, or is somebody else's.
        """
        self._began = time.monotonic()
        self.run, self.name, self.config, self.grows = run, name, config, grows
        self.kind = KINDS[name]
        self._word = command or self.kind.command
        self.target = self.folder = place or run.folder(name, subfolder)
        self._elsewhere = "--to" if place else "--run-dir"
        self.manifest: Manifest | None = None
        if fields is None:
            fields = key_fields(config, name)
        self.plan: dict[str, Any] = {
            "artifact": name,
            "schema": KINDS[name].schema,
            # Credentials decide no bytes.
            "fields": masked_json(json.loads(json.dumps(fields))),
            "inputs": inputs,
        }
        self.plan["key"] = digest_of(self.plan)
        self._open(overwrite)

    def _open(self, overwrite: bool) -> None:
        """Find out what is there, and whether it is kept, continued, mended or replaced."""
        refuse_foreign(self.target)
        # One that is damaged is made anew: a view at once, any other where that is asked for.
        renews = overwrite or self.kind.is_view
        old_plan = self._old_plan(renews)
        same = old_plan is not None and self._adopt(old_plan)
        if old_plan is not None and not same and not renews:
            raise ArtifactError(self._difference(old_plan))
        self._mends = same and renews and self._is_damaged()
        remakes = overwrite and self.kind.is_view
        self.manifest = self._finished() if same and not remakes else None
        if self.manifest is not None and not renews:
            self.manifest.refuse_damage(self.run.checks_all)
        # What is there stays until this one is whole.
        self._replaces = old_plan is not None and (self._mends or not same) and self.kind.resumes
        self._swap = self.manifest is None and (self._replaces or not self.kind.resumes)
        self.folder = beside(self.target) if self._swap else self.target
        if self._swap:
            refuse_taken(self.target)
        # Removed in begin(), so that a mistake found before it costs nothing.
        self._is_fresh = self._swap and self._lacks_plan

    def _old_plan(self, renews: bool) -> dict[str, Any] | None:
        """What the folder was planned as; None where it was not.

        Args:
            renews: Whether a plan that is damaged is that of another artifact, to be replaced.

        Raises:
            ArtifactError: The plan is damaged.
        """
        path = self.target / PLAN
        if not path.exists():
            return None
        cure = f"rebuild it with `{remake(self.target)}`"
        try:
            plan = read_json(path, cure)
            refuse_plan(plan, str(path), cure)
            return plan
        except ArtifactError:
            if not renews:
                raise
            return {}

    def _is_damaged(self) -> bool:
        """Whether the artifact that is there is not as it was written."""
        if not (self.target / MANIFEST).exists():
            return False
        try:
            return bool(read_manifest(self.target).damage(self.run.checks_all))
        except ArtifactError:
            return True

    def _adopt(self, old_plan: dict[str, Any]) -> bool:
        """Take over an earlier plan that means the same; whether it does.

        A plan of an earlier version may lack fields that have come since. Its key stands in what
        was made from it, so that it is kept.
        """
        if old_plan.get("key") == self.plan["key"]:
            return True
        if any(old_plan.get(part) != self.plan[part] for part in ("schema", "inputs")):
            return False
        if self._with_defaults(old_plan) != self._with_defaults(self.plan):
            return False
        # A manifest that cannot be read says nothing.
        finished = json_or_empty(self.target / MANIFEST)
        if finished.get("key") not in (None, old_plan.get("key")):
            return False
        self.plan = {part: old_plan[part] for part in self.plan}
        return True

    def _with_defaults(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The fields of a plan, those that it lacks at their defaults."""
        defaults = key_defaults(type(self.config), self.name) if self.config else {}
        return {**defaults, **plan.get("fields", {})}

    def _difference(self, old_plan: dict[str, Any]) -> str:
        """What makes an earlier plan another one, for a person."""
        before, after = self._with_defaults(old_plan), self._with_defaults(self.plan)
        parts = [
            f"{name} was {before.get(name)!r} and is {after.get(name)!r} now"
            for name in {**after, **before}
            if before.get(name) != after.get(name)
        ]
        inputs, new_inputs = old_plan.get("inputs", {}), self.plan["inputs"]
        parts += [
            f"{name}/ has changed since"
            for name in {**new_inputs, **inputs}
            if inputs.get(name) != new_inputs.get(name)
        ]
        schemas = f"its schema was {old_plan.get('schema')} and is {self.plan['schema']} now"
        if not parts and old_plan.get("schema") == self.plan["schema"]:
            return (
                f"{self.target / PLAN} is damaged: expected the key of {MANIFEST}, found another; "
                f"rebuild it with `{remake(self.target)}`"
            )
        return (
            f"{self.target}/ was planned with other settings: {'; '.join(parts) or schemas}; give "
            f"--overwrite to replace {self.name}/, or another {self._elsewhere} to keep both"
        )

    @property
    def done(self) -> bool:
        """Whether the artifact is finished with this very key."""
        return self.manifest is not None

    @property
    def key(self) -> str:
        """What decides the bytes, as a digest."""
        return str(self.plan["key"])

    @property
    def result(self) -> Manifest:
        """The manifest of the finished artifact."""
        assert self.manifest is not None, f"{self.name} is not finished"
        return self.manifest

    def begin(self, tasks: list[str], choices: dict[str, Any] | None = None) -> None:
        """Write the plan before the first task.

        Args:
            tasks: The files to make, one task each.
            choices: What was tuned by itself, kept for a resumed plan.
        """
        with self.run.exclusive():
            # Another share may have begun it since, or finished it.
            if self._swap and self.kind.resumes and self.reload():
                return
            if self._swap and self._lacks_plan:
                self._refuse_little_room()
                remove_ours(self.folder)
            self._is_fresh = False
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / PLAN).exists():
                content = {**self.plan, "tasks": tasks, "choices": choices or {}}
                content["command"] = self._command
                write_json(self.folder / PLAN, content)

    @property
    def _lacks_plan(self) -> bool:
        """Whether nothing lies in the folder that can be continued."""
        return not self.kind.resumes or self._choices_in(self.folder) is None

    @property
    def _command(self) -> str:
        """The command line that makes it; what is asked of every run stands elsewhere."""
        if self.config is None:
            return self.kind.maker
        return masked(command_line_of(self._word, self.config, _NOT_OF_IT))

    def _refuse_little_room(self) -> None:
        """Refuse to build beside an artifact where a second one of its size does not fit.

        Raises:
            ArtifactError: It does not.
        """
        if not self._replaces:
            return
        paths = (path for path in self.target.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in paths)
        free = shutil.disk_usage(self.target).free
        if size > free:
            raise ArtifactError(
                f"{self.target}/ stays until the new {self.name} are whole, and takes "
                f"{size / 1e9:,.1f} GB of which {free / 1e9:,.1f} GB are free; free the rest, or "
                "delete that folder and run the same command again"
            )

    @property
    def choices(self) -> dict[str, Any] | None:
        """What `begin` was given when this very artifact was begun; None where it was not.

        One that is damaged is made anew by the same choices.
        """
        of_damaged = self._choices_in(self.target) if self._mends else None
        begun = self._choices_in(self.folder)
        return of_damaged if begun is None else begun

    def _choices_in(self, folder: Path) -> dict[str, Any] | None:
        path = folder / PLAN
        plan = read_json(path) if path.exists() else {}
        return plan.get("choices") if plan.get("key") == self.plan["key"] else None

    def pending(self, tasks: list[str]) -> list[str]:
        """The tasks whose file is not there yet."""
        if self._swap and not self._is_fresh and not self.folder.exists():
            self.reload()
        return [task for task in tasks if self._is_fresh or not (self.folder / task).exists()]

    def finish(
        self,
        files: list[str],
        *,
        counts: "Counts | dict[str, Any]",
        extra: dict[str, Any] | None = None,
        card: DatasetCard | None = None,
        is_whole: bool = True,
    ) -> Manifest:
        """Write the manifest, last; put what was built beside into place.

        Args:
            files: Paths below the folder that belong to the artifact.
            counts: Numbers of what came in, was kept, was dropped.
            extra: Whatever else readers need.
            card: What the dataset card says, which is one more file and names the content of these.
            is_whole: Whether one that grows holds what it was begun for, and takes the place of
                an earlier one.

        Returns:
            The manifest of the finished artifact.
        """
        with self.run.exclusive():
            # Another share may have finished it at the same time.
            if self.grows or not self.kind.resumes or not self.reload():
                plain = counts if isinstance(counts, dict) else counts.to_json()
                self.manifest = self._publish(files, plain, extra or {}, card)
                self._settle(is_whole)
        return self.result

    def reload(self) -> bool:
        """Take in what another share has published since; whether that is the artifact."""
        self.manifest = self._finished()
        if self.manifest is not None and self.manifest.folder == self.target:
            self.folder, self._swap = self.target, False
        return self.done

    def _settle(self, is_whole: bool) -> None:
        """Put the finished artifact into its place; remove what was begun of another beside it."""
        if self._swap and is_whole:
            swap_in(self.target)
            self.folder, self._swap = self.target, False
            self.manifest = Manifest(self.folder, self.result.content)
            self._mends = False
        elif not self._swap:
            settle(self.target, keep_new=False)
        # Their checksums are known: no later command needs to read them for that.
        remember(self.folder, self.result.content["files"])
        if not self._swap and not self.grows:
            clear_scratch(self.target, self.name)

    def _publish(
        self,
        files: list[str],
        counts: dict[str, Any],
        extra: dict[str, Any],
        card: DatasetCard | None,
    ) -> Manifest:
        listed = [file_entry(self.folder, name) for name in files]
        digest = _digest_of_files(listed)
        if card is not None:
            card.write(self.folder, digest)
            listed.append(file_entry(self.folder, DATASET_CARD))
            digest = _digest_of_files(listed)
        content = {
            **self.plan,
            "digest": self.plan["key"] if self.grows else digest,
            "counts": counts,
            "extra": extra,
            "config": masked_json(asdict(self.config)) if self.config else {},
            "command": self._command,
            "files": listed,
            "stx_mine": __version__,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            # Of the call that finished it.
            "took": {
                "seconds": round(time.monotonic() - self._began, 3),
                "peak_rss_bytes": progress.peak_memory(),
            },
        }
        content = sealed(json.loads(json.dumps(content)))
        write_json(self.folder / MANIFEST, content)
        return Manifest(self.folder, content)

    def _finished(self) -> Manifest | None:
        """The manifest of this very artifact: of its place, or of one that still grows beside."""
        grown = [self.folder] if self.grows and self.manifest is not None else []
        for folder in (self.target, *grown):
            is_old = self._mends and folder == self.target and self._is_damaged()
            if (folder / MANIFEST).exists() and not is_old:
                found = read_manifest(folder)
                if found.content["key"] == self.plan["key"]:
                    return found
        return None


def _digest_of_files(listed: list[dict[str, Any]]) -> str:
    """Digest over names and checksums."""
    return digest_of([(one["file"], one["xxh3_128"]) for one in listed])
