"""Who: people, teams, roles, API keys, secrets, and the record of what they did."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower, Now

from teams.states import Role, SecretKind


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. They log in with their e-mail address; what they may do follows from memberships."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = False
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[UserManager] = UserManager()
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            # Readers: log-in and `entity.emails`, which take an address in any case.
            models.UniqueConstraint(Lower("email"), name="user_email_any_case"),
        ]

    def __str__(self) -> str:
        return self.name or self.email


class Team(models.Model):
    """A group of people who share runs. `organizations` in the client's words."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    data_key = models.TextField(editable=False)
    """Seals what the team keeps; itself sealed under the master key (`teams.crypto`)."""
    runs_may_submit = models.BooleanField(default=True)
    """Runs may submit further runs as their owner, with the token that each of them has."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="teams")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=[(role, role.title()) for role in Role])
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "team"], name="membership_once"),
            models.CheckConstraint(condition=models.Q(role__in=list(Role)), name="membership_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.team}: {self.role}"


class APIKey(models.Model):
    """Lets a program act as one user in one team. Only the SHA-256 of the key is kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_keys")
    team = models.ForeignKey(Team, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=12, editable=False)
    """The key's first characters, by which its owner knows it again."""
    scopes = ArrayField(models.CharField(max_length=10), default=list)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        indexes = [
            # Reader: the profile page's list of one's own keys, newest first.
            models.Index(fields=["user", "-created_at"], name="apikey_of_user"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"


class Secret(models.Model):
    """Something that runs get and nobody reads back. Personal (`owner`), or for every run of the team."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, models.CASCADE, related_name="secrets")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="secrets")
    name = models.CharField(max_length=253)
    kind = models.CharField(max_length=20, choices=[(kind, kind) for kind in SecretKind])
    metadata = models.JSONField(default=dict)
    """Where it goes, as the client reads it back (mapi §5.1). Sealed with the value as well."""
    sealed = models.TextField(editable=False)
    """The value, under the team's data key, with what the row says of it (`teams.crypto`)."""
    version = models.PositiveIntegerField(default=1)
    short = models.BooleanField(default=False)
    """A part of it is too short to be masked in logs."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    rotated_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_used_by = models.CharField(max_length=63, blank=True, editable=False)
    """The run that got it last."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "owner", "name"], nulls_distinct=False, name="secret_name_once"
            ),
            models.CheckConstraint(condition=models.Q(kind__in=list(SecretKind)), name="secret_kind"),
        ]

    def __str__(self) -> str:
        return self.name


class AuditEntry(models.Model):
    """What a person, a key or the system did. Written by `teams.audit` only; never changed."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now(), editable=False)
    team = models.ForeignKey(Team, models.SET_NULL, null=True, related_name="audit_entries")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    api_key = models.ForeignKey(APIKey, models.SET_NULL, null=True, related_name="+")
    actor = models.CharField(max_length=300)
    """Who it was, in words that outlive the account: an address, or "system"."""
    action = models.CharField(max_length=60)
    """Dotted and in the past tense: `run.submitted`, `key.revoked`."""
    target = models.CharField(max_length=300)
    data = models.JSONField(default=dict)

    class Meta:
        indexes = [
            # Reader: the audit page of a team, newest first.
            models.Index(fields=["team", "-id"], name="audit_of_team"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"
