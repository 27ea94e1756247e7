"""Alerts reach real servers, once for each problem, and a channel that is down disturbs nothing."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.operations import alerts
from accelkd.operations.alert_channels import load_alert_settings
from accelkd.operations.alerts import Problem, alert_status, deliver, record, send_test
from tests.support.receivers import Mailbox, Received, http_receiver, mail_server

QUARANTINE = Problem("check:segments:quarantine_rate:b1", "check_warning", "quarantine_rate of b1 failed", "WARN")
REFUSED = Problem("landing:b2", "landing_zone", "batch b2 cannot be used: participants.parquet: sha256", "1")
FAILED = Problem("run:per_batch:b1", "run_failed", "a run of per_batch failed in segments, batch b1", "OSError")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with http_receiver() as received:
        monkeypatch.setenv("ACCELKD_WEBHOOK_URL", received.url)
        yield received


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with mail_server() as mailbox:
        yield mailbox


def configure(home: Home, text: str) -> None:
    (home.root / "alerts.toml").write_text(text)


def mail(port: int, more: str = 'security = "none"') -> str:
    return (
        f'[mail.team]\nhost = "127.0.0.1"\nport = {port}\nsender = "accelkd@example.org"\n'
        f'recipients = ["a@example.org", "b@example.org"]\n{more}\n'
    )


def file_lines(home: Home) -> list[tuple[str, str]]:
    path = home.root / "alerts" / "alerts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["status"], line["text"]) for line in lines]


def test_every_channel_gets_a_problem_once_and_its_end(home: Home, webhook: Received, mailbox: Mailbox) -> None:
    configure(home, mail(mailbox.port) + "[webhook.oncall]\n[file.log]\n")
    for _ in range(3):
        record(home, [FAILED, REFUSED])
        assert deliver(home) == []
    (post,) = webhook.posts
    assert post["text"].splitlines() == ["accelkd home: 2 problems", f"[new] {FAILED.text}", f"[new] {REFUSED.text}"]
    assert mailbox.recipients == [["a@example.org", "b@example.org"]]
    assert str(mailbox.mails[0]["Subject"]) == "accelkd home: 2 problems"
    assert REFUSED.text in mailbox.texts[0]
    assert file_lines(home) == [("new", FAILED.text), ("new", REFUSED.text)]

    record(home, resolved=[FAILED.key, "never opened"])
    deliver(home)
    assert webhook.posts[1]["text"].splitlines() == ["accelkd home: 1 resolved", f"[resolved] {FAILED.text}"]
    assert len(mailbox.mails) == 2
    assert file_lines(home)[2:] == [("resolved", FAILED.text)]
    record(home, [FAILED])
    deliver(home)
    assert file_lines(home)[3:] == [("new", FAILED.text)]


def test_a_problem_that_changes_is_reported_again(home: Home) -> None:
    configure(home, "[file.log]\n")
    record(home, [FAILED])
    record(home, [Problem(FAILED.key, FAILED.kind, "now it is another error", "ValueError")])
    deliver(home)
    assert file_lines(home) == [("new", FAILED.text), ("changed", "now it is another error")]


def test_a_channel_gets_the_kinds_that_it_selects(home: Home, webhook: Received) -> None:
    configure(home, '[file.log]\nsend = ["check_warning"]\n[webhook.oncall]\n')
    record(home, [QUARANTINE, FAILED])
    deliver(home)
    assert file_lines(home) == [("new", QUARANTINE.text)]
    assert QUARANTINE.text not in webhook.posts[0]["text"]  # warnings are off unless asked for


def test_a_channel_that_is_down_keeps_its_queue_and_no_other_waits(
    home: Home, webhook: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook.status = 500
    configure(home, "[webhook.oncall]\n[file.log]\n")
    record(home, [FAILED])
    (line,) = deliver(home)
    assert line.startswith("webhook.oncall: the webhook answered 500; 1 alerts wait, next attempt in 60 s")
    assert file_lines(home) == [("new", FAILED.text)]
    assert deliver(home) == []
    assert len(webhook.methods) == 1  # not before the pause has passed

    now = time.time()
    for minutes in (2, 10):
        monkeypatch.setattr("accelkd.operations.alerts.time.time", lambda minutes=minutes: now + 60 * minutes)
        assert deliver(home)
    down = "channel webhook.oncall delivers no alerts: the webhook answered 500"
    assert file_lines(home)[1:] == [("new", down)]
    assert alert_status(home).undelivered == {"webhook.oncall": 1}

    webhook.status = 200
    monkeypatch.setattr("accelkd.operations.alerts.time.time", lambda: now + 3600)
    assert deliver(home) == []
    assert f"[new] {FAILED.text}" in webhook.posts[0]["text"]
    assert file_lines(home)[2:] == [("resolved", down)]
    assert alert_status(home).failing == {}


def test_what_cannot_be_sent_for_two_days_is_dropped_and_counted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELKD_WEBHOOK_URL", "http://127.0.0.1:9/SECRET-TOKEN")  # nobody listens
    configure(home, "[webhook.oncall]\n")
    record(home, [FAILED])
    (line,) = deliver(home)
    assert "SECRET" not in line
    now = time.time()
    monkeypatch.setattr("accelkd.operations.alerts.time.time", lambda: now + alerts.GIVE_UP_S + 60)
    deliver(home)
    status = alert_status(home)
    assert (status.undelivered, status.dropped) == ({}, {"webhook.oncall": 1})


def test_many_problems_are_one_message(home: Home, webhook: Received) -> None:
    configure(home, "[webhook.oncall]\n")
    record(home, [Problem(f"landing:b{n}", "landing_zone", f"batch b{n} cannot be used") for n in range(500)])
    deliver(home)
    (post,) = webhook.posts
    assert post["text"].startswith("accelkd home: 500 problems\n[new] batch b0 cannot")
    assert "and 470 more" in post["text"]


def test_a_redirect_is_no_delivery(home: Home, webhook: Received) -> None:
    webhook.status = 302
    configure(home, "[webhook.oncall]\n")
    assert send_test(home) == {"webhook.oncall": "the webhook answered 302"}
    assert webhook.methods == ["POST"]


def test_a_mail_password_is_sent_encrypted_to_a_server_that_is_who_it_says(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *extension], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with mail_server(tls=context, login=("robot", "correct horse")) as mailbox:
        configure(home, mail(mailbox.port, 'user = "robot"'))
        monkeypatch.setenv("ACCELKD_SMTP_PASSWORD", "correct horse")
        assert "SSL" in str(send_test(home)["mail.team"])  # nobody vouches for the certificate
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send_test(home) == {"mail.team": None}
        assert mailbox.encrypted == [True]
        monkeypatch.setenv("ACCELKD_SMTP_PASSWORD", "wrong")
        assert send_test(home) == {"mail.team": "the mail server answered 535 (SMTPAuthenticationError)"}


def test_what_others_named_makes_no_header_and_no_second_line(home: Home, mailbox: Mailbox) -> None:
    configure(home, mail(mailbox.port))
    record(home, [Problem("landing:x", "landing_zone", "batch x\r\nBcc: thief@example.org\n\x1b[2Jy cannot be used")])
    assert deliver(home) == []
    assert mailbox.recipients == [["a@example.org", "b@example.org"]]
    assert "[new] batch x  Bcc: thief@example.org  [2Jy cannot be used" in mailbox.texts[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[mail.team]\nhost = 'h'\nsender = 's'\n", "mail.team.recipients: Field required"),
        ("[webhook.a]\nurl = 'https://hooks.example.org/SECRET-TOKEN'\n", "webhook.a.url: there is no such key"),
        ("[file.log]\nsend = ['everything']\n", "file.log.send.0: must be 'run_failed'"),
        ("[mail.t]\nhost='h'\nsender='s'\nrecipients=['r']\nuser='u'\nsecurity='none'\n", "encrypted only"),
        ("[mail.t]\nhost='h'\nsender=\"s\\nBcc: x\"\nrecipients=['r']\n", "mail.t.sender: "),
        ("[file.log\n", "Expected ']'"),
        ("[pager.a]\n", "pager: there is no such key"),
    ],
)
def test_a_bad_configuration_is_refused_with_key_and_rule_without_its_values(home: Home, text: str, why: str) -> None:
    configure(home, text)
    with pytest.raises(ValueError, match=r"alerts\.toml: ") as error:
        load_alert_settings(home)
    assert why in str(error.value)
    assert "SECRET" not in str(error.value)


def test_a_problem_survives_a_bad_configuration(home: Home) -> None:
    configure(home, "[fil.log]\n")
    record(home, [FAILED])
    with pytest.raises(ValueError, match="fil"):
        deliver(home)
    configure(home, "[file.log]\n")
    deliver(home)
    assert file_lines(home) == [("new", FAILED.text)]


def test_a_webhook_is_never_called_in_the_clear(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, "[webhook.a]\n")
    assert "ACCELKD_WEBHOOK_URL is not set" in str(send_test(home)["webhook.a"])
    monkeypatch.setenv("ACCELKD_WEBHOOK_URL", "http://hooks.example.org/SECRET-TOKEN")
    error = str(send_test(home)["webhook.a"])
    assert "https://" in error
    assert "SECRET" not in error


def test_the_command_tests_every_channel(home: Home, webhook: Received, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--home", str(home.root), "alert"]
    assert main([*command, "--test"]) == 2  # alerts are off
    configure(home, "[webhook.oncall]\n[file.log]\n")
    assert main([*command, "--test"]) == 0
    assert "webhook.oncall: sent\nfile.log: sent" in capsys.readouterr().out
    webhook.status = 403
    assert main([*command, "--test"]) == 1
    assert "webhook.oncall: FAILED: the webhook answered 403" in capsys.readouterr().out
    record(home, [FAILED])
    assert main(command) == 0
    assert f"run_failed: {FAILED.text}" in capsys.readouterr().out


def test_a_damaged_state_reports_again_instead_of_never(home: Home) -> None:
    configure(home, "[file.log]\n")
    record(home, [FAILED])
    deliver(home)
    (home.root / "alerts" / "state.json").write_text("{")
    record(home, [FAILED])
    deliver(home)
    assert file_lines(home) == [("new", FAILED.text)] * 2
