"""All settings, from the environment. `docs/operations.md` lists every variable.

One file for every place that Runyard runs in: a laptop, CI and production differ in their environment only.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from limits import parse as parse_rate
from redis.connection import parse_url

from console.services.paths import Home
from teams.crypto import load_or_create_key
from teams.database import SERVER, TCP, Connection

BASE = Path(__file__).resolve().parent.parent


def env_int(name: str, default: int) -> int:
    raw = os.environ.get(name, "")
    try:
        return int(raw) if raw else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {raw!r}") from None


def env_bool(name: str, default: bool = False) -> bool:
    raw = os.environ.get(name, "").lower()
    if raw not in {"", "0", "1", "true", "false", "yes", "no"}:
        raise ImproperlyConfigured(f"{name} must be true or false, not {raw!r}")
    return default if not raw else raw in {"1", "true", "yes"}


def env_rate(name: str, default: str) -> str:
    """In the words of `limits`: `100/minute`, `20 per 5 minutes`; `off` for none."""
    raw = os.environ.get(name) or default
    try:
        return "off" if raw.lower() == "off" else str(parse_rate(raw) and raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be like 100/minute, or off, not {raw!r}") from None


# -- where things are -------------------------------------------------------------------------------

RUNYARD_HOME = Path(os.environ.get("RUNYARD_HOME") or BASE / "var").resolve()
HOME = Home(RUNYARD_HOME)
RUNYARD_PORT = env_int("RUNYARD_PORT", 8000)
RUNYARD_BIND = os.environ.get("RUNYARD_BIND") or "127.0.0.1"
_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(RUNYARD_BIND, RUNYARD_BIND)
RUNYARD_URL = (os.environ.get("RUNYARD_URL") or f"http://{_host}:{RUNYARD_PORT}").rstrip("/")
"""The address under which people and runs reach the console: behind a TLS proxy, the proxy's."""
LOG_ROOT = Path(os.environ.get("RUNYARD_LOG_ROOT") or RUNYARD_HOME / "logs")
"""Segments of run logs. A file system shared by all hosts that run web or collector."""

DEBUG = False
SECRET_KEY = load_or_create_key(HOME.keys / "django.key")
MASTER_KEY_FILE = HOME.keys / "master.key"

_outside = urlsplit(RUNYARD_URL)
ALLOWED_HOSTS = [
    *{_outside.hostname or "127.0.0.1", RUNYARD_BIND, "localhost", "127.0.0.1", "[::1]"},
    *filter(None, os.environ.get("RUNYARD_ALLOWED_HOSTS", "").split(",")),
]
CSRF_TRUSTED_ORIGINS = [f"{_outside.scheme}://{_outside.netloc}"]
_tls = _outside.scheme == "https"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _tls
SESSION_COOKIE_NAME = f"runyard_session_{RUNYARD_PORT}"
CSRF_COOKIE_NAME = f"runyard_csrf_{RUNYARD_PORT}"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _tls else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# -- the application --------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "axes",
    "channels",
    "django_htmx",
    "template_partials",
    "console",
    "teams",
    "clusters",
    "runs",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "axes.middleware.AxesMiddleware",
    "console.rates.Guessing",
]
APPEND_SLASH = False
"""A redirect is fatal to API clients (mapi §1.2); every URL is spelled one way."""
ROOT_URLCONF = "console.urls"
ASGI_APPLICATION = "console.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"

# -- PostgreSQL -------------------------------------------------------------------------------------


def database(url: str) -> dict[str, Any]:
    """Turn `postgresql://user:password@host:port/name?host=/socket/folder` into Django's setting."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ImproperlyConfigured(f"DATABASE_URL must begin with postgresql://, not {parts.scheme}://")
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "runyard",
        "USER": query.pop("user", None) or unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", None) or parts.hostname or "",
        "PORT": query.pop("port", None) or str(parts.port or ""),
        # A pool, not CONN_MAX_AGE: under ASGI every request may be on another thread.
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "pool": {
                "min_size": 1,
                "max_size": env_int("RUNYARD_DB_POOL", 20),
                "timeout": 10,
                # Pauses between attempts to connect double until this is over, and then begin anew.
                "reconnect_timeout": 10,
                "connection_class": Connection,
            },
            "application_name": os.environ.get("RUNYARD_SERVICE", "manage"),
            "options": " ".join(f"-c {name}={value}" for name, value in SERVER.items()),
            **TCP,
            **query,
        },
    }


DATABASES = {"default": database(os.environ.get("DATABASE_URL") or HOME.database_url)}

# -- Valkey -----------------------------------------------------------------------------------------

REDIS_URL = os.environ.get("REDIS_URL") or HOME.redis_url
"""In redis-py's spelling: `redis://host:6379/0`, `rediss://…` or `unix:///path.sock?db=0`."""


def celery_url(url: str) -> str:
    """The same server in Celery's spelling: `redis+socket:///path.sock?virtual_host=0` for a socket."""
    parsed = parse_url(url)  # type: ignore[no-untyped-call]
    if "path" not in parsed:
        return url
    password = f"&password={parsed['password']}" if parsed.get("password") else ""
    return f"redis+socket://{parsed['path']}?virtual_host={parsed.get('db', 0)}{password}"


CELERY_BROKER_URL = celery_url(REDIS_URL)

# -- people -----------------------------------------------------------------------------------------

AUTH_USER_MODEL = "teams.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
# No mail is sent: what would send one is a mistake, and must not reach whoever listens on port 25.
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "runs:list"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "teams.forms.InvitedOnly"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
# allauth counts log-in attempts in the cache; django-axes does it in the database, where it lasts.
ACCOUNT_RATE_LIMITS = False
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
# By address *and* name: nobody can lock somebody else out from elsewhere.
AXES_LOCKOUT_PARAMETERS = [["ip_address", "username"]]
AXES_USERNAME_CALLABLE = "teams.forms.login_name"
AXES_LOCKOUT_TEMPLATE = "account/lockout.html"
AXES_VERBOSE = False
AXES_ENABLE_ADMIN = False
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]

# -- pages ------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = RUNYARD_HOME / "static"
STATICFILES_DIRS = [BASE / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "console.static.Storage"},
}
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],  # Tabler draws its check marks with data: images
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "worker-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    },
}
NODE_MODULES = BASE / "node_modules"
ICONS = NODE_MODULES / "@tabler" / "icons" / "icons" / "outline"

# -- how Runyard behaves ----------------------------------------------------------------------------

RUNYARD_GRACE_SECONDS = env_int("RUNYARD_GRACE_SECONDS", 30)
"""Between TERM and KILL when a run is stopped."""
RUNYARD_UNDELETE_HOURS = env_int("RUNYARD_UNDELETE_HOURS", 24)
"""How long a deleted run can be brought back; then its logs and texts are removed."""
RUNYARD_LEASE_SECONDS = 15
"""How long a worker or collector that died keeps others from its work."""
RUNYARD_SWEEP_SECONDS = env_int("RUNYARD_SWEEP_SECONDS", 2)
RUNYARD_LOG_QUOTA = env_int("RUNYARD_LOG_QUOTA_GIB", 5) * 2**30
"""Bytes of output kept for each stream of a run."""
HOST_QUEUE = f"host.{socket.gethostname()}"
"""The Celery queue of the workers on this host, which alone can reach its process clusters."""
RUNYARD_API_RATE = env_rate("RUNYARD_API_RATE", "6000/minute")
"""Requests with one API key, or with one run's token."""
RUNYARD_PERSON_RATE = env_rate("RUNYARD_PERSON_RATE", "12000/minute")
"""Requests of one person, with all their keys and runs."""
RUNYARD_LOGIN_RATE = env_rate("RUNYARD_LOGIN_RATE", "120/minute")
"""Forms with a password or code from one address."""
RUNYARD_CODE_RATE = env_rate("RUNYARD_CODE_RATE", "10 per 15 minutes")
"""Wrong codes of a second factor, or passwords asked for once more, for one person."""
RUNYARD_METRICS_TOKEN_FILE = HOME.keys / "metrics.token"

# -- logging ----------------------------------------------------------------------------------------

LOGGING_CONFIG = "console.logging.configure"
LOGGING: dict[str, Any] = {"level": os.environ.get("RUNYARD_LOG_LEVEL", "INFO")}
