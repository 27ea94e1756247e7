"""Where alerts go: `alerts.toml` of a home, and sending one message by mail, webhook or file.

Secrets (a webhook's URL, a mail account's password) are read from environment variables when a message is sent; no
file, log or error holds them.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from accelkd.home.layout import Home

Kind = Literal["run_failed", "check_error", "check_warning", "landing_zone", "overdue", "channel_down"]
DEFAULT_KINDS: tuple[Kind, ...] = ("run_failed", "check_error", "landing_zone", "overdue", "channel_down")

TIMEOUT_S = 10.0  # of every step of a delivery: a sensor's tick is cut off after a minute
MAX_ENTRIES = 30  # that a mail or webhook message lists; it says how many more there are
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_Line = Annotated[str, Field(pattern=r"^[^\r\n\x00]+$")]  # goes into a header
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class DeliveryError(Exception):
    """A message was not delivered; the text says why, without addresses and secrets."""


@dataclass(frozen=True)
class Entry:
    """One line of a message."""

    status: Literal["new", "changed", "resolved", "test"]
    kind: Kind
    text: str  # one sentence, without participants
    at: str  # ISO 8601, UTC


class _Channel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    send: Annotated[list[Kind], Field(strict=False)] = list(DEFAULT_KINDS)


class Mail(_Channel):
    """A mail to some people, by SMTP."""

    host: _Line
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: _Line
    recipients: Annotated[list[_Line], Field(min_length=1)]
    user: _Line | None = None  # without one, nobody logs in
    password_variable: _Variable = "ACCELKD_SMTP_PASSWORD"

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> Mail:
        if self.user and self.security == "none":
            raise ValueError('a password is sent encrypted only: set security to "starttls" or "tls"')
        return self

    def deliver(self, home: Home, subject: str, entries: Sequence[Entry]) -> None:
        """Send one mail. Raises DeliveryError."""
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = self.sender
        message["To"] = ", ".join(self.recipients)
        message["Date"] = formatdate()
        message.set_content(f"{_body(entries)}\n\nHome: {home.root.name}\n")
        try:
            with self._connection() as connection:
                if self.security == "starttls":
                    connection.starttls(context=ssl.create_default_context())
                if self.user:
                    connection.login(self.user, _secret(self.password_variable))
                refused = connection.send_message(message)
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"the mail server answered {error.smtp_code} ({type(error).__name__})") from None
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            raise DeliveryError(_reason(error)) from None
        if refused:
            raise DeliveryError(f"the mail server refused {len(refused)} of {len(self.recipients)} recipients")

    def _connection(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)


class Webhook(_Channel):
    """A Slack-compatible incoming webhook: JSON with the field `text`."""

    url_variable: _Variable = "ACCELKD_WEBHOOK_URL"

    def deliver(self, home: Home, subject: str, entries: Sequence[Entry]) -> None:  # noqa: ARG002  (a file needs it)
        """Post one message. Raises DeliveryError."""
        url = _secret(self.url_variable)
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise DeliveryError(
                f"the URL in {self.url_variable} must begin with https:// (http:// to this machine only)"
            )
        body = json.dumps({"text": f"{subject}\n{_body(entries)}"}).encode()
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json; charset=utf-8"})
            with _opener.open(request, timeout=TIMEOUT_S):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            raise DeliveryError(f"the webhook answered {error.code}") from None
        except urllib.error.URLError as error:
            raise DeliveryError(_reason(error.reason)) from None
        except (HTTPException, OSError, ValueError) as error:
            raise DeliveryError(type(error).__name__) from None  # whose text may hold the URL


class File(_Channel):
    """JSON lines appended to a file, one for each entry."""

    path: Annotated[Path, Field(strict=False)] = Path("alerts/alerts.jsonl")  # below the home, or absolute

    def deliver(self, home: Home, subject: str, entries: Sequence[Entry]) -> None:  # noqa: ARG002  (mail has it)
        """Append the entries in one write. Raises DeliveryError."""
        path = home.root / self.path
        lines = "".join(json.dumps(vars(entry), ensure_ascii=False) + "\n" for entry in entries)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                file.write(lines.encode())
        except OSError as error:
            raise DeliveryError(_reason(error)) from None


Channel = Mail | Webhook | File
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class AlertSettings(BaseModel):
    """The channels of a home: tables `[mail.NAME]`, `[webhook.NAME]` and `[file.NAME]` of `alerts.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mail: dict[_Name, Mail] = {}
    webhook: dict[_Name, Webhook] = {}
    file: dict[_Name, File] = {}

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Every channel by its name, such as `mail.team`."""
        kinds: Mapping[str, Mapping[str, Channel]] = {"mail": self.mail, "webhook": self.webhook, "file": self.file}
        return {f"{kind}.{name}": channel for kind, named in kinds.items() for name, channel in named.items()}


def settings_file(home: Home) -> Path:
    """Where the channels are written down; without the file nothing is sent."""
    return home.root / "alerts.toml"


def load_alert_settings(home: Home) -> AlertSettings:
    """The channels of a home, none without a file. Raises ValueError that names file, key and rule."""
    path = settings_file(home)
    try:
        return AlertSettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return AlertSettings()
    except ValidationError as error:
        raise ValueError(f"{path}: {'; '.join(_explain(line) for line in error.errors())}") from None
    except ValueError as error:  # no TOML, or not UTF-8
        raise ValueError(f"{path}: {error}") from None


def _explain(error: Mapping[str, Any]) -> str:
    """Key and rule; the value is left out, for it may be a secret that was written to the wrong place."""
    where = ".".join(str(part) for part in error["loc"] if part != "[key]")
    message = "there is no such key" if error["type"] == "extra_forbidden" else str(error["msg"])
    return f"{where}: {message.replace('Input should', 'must').replace('Value error, ', '')}"


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise DeliveryError(f"the environment variable {variable} is not set")
    return value


def _body(entries: Sequence[Entry]) -> str:
    lines = [f"[{entry.status}] {entry.text}" for entry in entries[:MAX_ENTRIES]]
    if len(entries) > MAX_ENTRIES:
        lines.append(f"and {len(entries) - MAX_ENTRIES} more: see the Dagster UI, or `accelkd alert`")
    return "\n".join(lines)


def _reason(error: object) -> str:
    """The system's words for an error, without the names in it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__ if isinstance(error, BaseException) else "the connection failed"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET that delivers nothing."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)
