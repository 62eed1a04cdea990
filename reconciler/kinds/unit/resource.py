"""What may be said of a unit, and what is seen of it. It must not look at the host."""

from __future__ import annotations

from typing import Annotated, Literal

from reconciler.base.records import dataclass, field
from reconciler.core.fields import Flag, Name, Text, Variables, choice

RUNS_AND_ENDS = (
    "with Type=oneshot and without RemainAfterExit=yes it runs and ends, so that it never stays "
    "active; leave active out, and start it by a timer"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of systemd; without ``template`` and ``content`` its file is left alone."""

    unit: Name | None = None
    """Its name, such as web.service; by default the resource's name."""
    template: Name | None = field(default=None, metadata={"template": "file"})
    """The template that gives its file."""
    content: Text | None = field(default=None, metadata={"template": "text"})
    """The text of its file, which may hold templates."""
    vars: Variables = field(default=(), metadata={"template": "values"})
    """Values for the template."""
    secret: tuple[Name, ...] = ()
    """Of vars: values that are shown nowhere; those of Environment= go into a file of mode 0600."""
    scope: Annotated[Literal["system", "user"], choice("system", "user")] = "system"
    """Whose systemd runs it: that of the system, or that of the user."""
    enabled: Flag | None = None
    """Is it started at boot, or with what it is wanted by?"""
    active: Flag | None = None
    """Does it run?"""
    on_change: Annotated[
        Literal["restart", "reload", "none"], choice("restart", "reload", "none")
    ] = "restart"
    """What a running unit gets when its file has changed."""
    drop_in: Name | None = None
    """A name: UNIT.d/NAME.conf is written instead, also for a unit of somebody else."""
    adopt: Flag = False
    """Is a file of that name which no spec has made taken over, so that it need not be ours?"""
    text: str | None = field(default=None, metadata={"written": False})
    hides: bool = field(default=False, metadata={"written": False})
    """Does its text hold a secret?"""
    environment: str | None = field(default=None, metadata={"written": False})
    """What its EnvironmentFile holds; None: it has none."""
    programs: tuple[str, ...] = field(default=(), metadata={"written": False})
    links: tuple[str, ...] = field(default=(), metadata={"written": False})
    """The symlinks that enabling makes, below the folder of units."""
    templated: bool = field(default=False, metadata={"written": False})
    """Does the spec declare the template that it is an instance of?"""

    @property
    def file(self) -> str:
        """The name of its file below the folder of units."""
        return f"{self.unit}.d/{self.drop_in}.conf" if self.drop_in else str(self.unit)

    @property
    def environment_name(self) -> str:
        """The name of its EnvironmentFile."""
        return f"{self.unit}.{self.drop_in}" if self.drop_in else str(self.unit)

    @property
    def environment_file(self) -> str:
        """Where its EnvironmentFile is, as the unit says it; ``%E`` is for systemd.unit(5)."""
        root = "/etc" if self.scope == "system" else "%E"
        return f"{root}/reconcile/env/{self.environment_name}"

    @property
    def is_template(self) -> bool:
        """Is it one of which only instances can be started?"""
        return "@." in str(self.unit)

    @property
    def template_unit(self) -> str | None:
        """The name of the template whose instance it is, systemd.unit(5); None: of none."""
        stem, at, rest = str(self.unit).partition("@")
        if not at or self.is_template or self.text is not None:
            return None
        return f"{stem}@.{rest.rpartition('.')[2]}"

    @property
    def mode(self) -> str:
        """What a file of units has; one with a secret is not for everybody."""
        return "0600" if self.hides else "0644"

    def taken(self, text: str) -> str:
        """A text of its file, with our header where that is all that an adopted one lacks."""
        whole = str(self.text)
        return whole if self.adopt and text == whole.partition("\n\n")[2] else text

    def shown(self, text: str) -> str:
        """A text of its file, as it may be shown."""
        return self.hidden(text) if self.hides else text

    def hidden(self, text: str) -> str:
        """What is shown of a text that holds a secret."""
        from reconciler.base.digests import blake2b

        digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6)
        return f"(not shown: it holds a secret; digest {digest.hexdigest()})"


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit's file and how it runs; None is not looked at, or not known.

    ``loaded`` and ``started`` are ``older`` when the manager, or what runs, has not seen the
    file as it is now. ``environment`` is its EnvironmentFile: what is shown of it, empty for none.
    The last ones are for the actions: the file itself and where it is, the
    options that unmask it, what must be restarted with it; ``there`` is False when there is
    neither a file nor anything that runs, and ``silent`` True where no manager can be told.
    """

    content: str | None = None
    mode: str | None = None
    owner: str | None = None
    environment: str | None = None
    masked: bool | None = None
    loaded: str | None = None
    enabled: bool | None = None
    active: bool | None = None
    started: str | None = None
    text: str | None = None
    path: str | None = None
    masks: tuple[tuple[str, ...], ...] | None = None
    others: tuple[str, ...] | None = None
    there: bool | None = None
    silent: bool | None = None
    environment_path: str | None = None
    environment_text: str | None = None
