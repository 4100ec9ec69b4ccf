"""Variables that nobody reads are refused with the nearest one; a list of levels is read as people write it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from app.cli_common import settings_of
from app.settings import BESIDE, SECRETS, Settings, unknown_variables

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_variable_that_nobody_reads_is_named_with_the_nearest() -> None:
    known = {f"DESKRISK_{n.upper()}": "1" for n in (*Settings.model_fields, *BESIDE)}
    assert unknown_variables(known | {"PATH": "x", "deskrisk_brokers": "x", "DESKRISK_GATE_SERVICE_HOST": "10.0.0.1", "DESKRISK_GATE_PORT_80_TCP_ADDR": "x"}) == []
    (brokers, nothing) = unknown_variables(known | {"DESKRISK_BROKER": "x", "DESKRISK_ZZZZ_QQQQ_0815": "x"})
    assert "the nearest is DESKRISK_BROKERS, was DESKRISK_BROKER" in brokers
    assert "nearest" not in nothing and nothing.endswith("was DESKRISK_ZZZZ_QQQQ_0815")


def test_a_command_ends_with_wrong_usage_where_a_variable_is_not_known() -> None:
    done = subprocess.run([sys.executable, "-m", "app", "reference", "load", ".", "--check"], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {"DESKRISK_FUTUR_MS": "1"})
    assert done.returncode == 2 and "DESKRISK_FUTURE_MS" in done.stderr and "DESKRISK_FUTUR_MS" in done.stderr


def test_a_value_that_cannot_be_is_shown_unless_it_is_a_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKRISK_FUTURE_MS", "60s")
    monkeypatch.setenv("DESKRISK_LEVELS", "book,,firm")
    with pytest.raises(typer.Exit):
        settings_of()
    said = capsys.readouterr().err.replace("\n", " ")
    assert "setting future_ms" in said and "'60s'" in said
    assert {"api_tokens", "sasl_password", "clickhouse_url", "api_token"} == SECRETS


def test_a_folder_without_scenarios_is_no_success(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "app", "rehearse", str(tmp_path), "--embedded"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "expected files of scenarios, found none" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("text", ["book,desk,fund,firm", "book, desk ,fund,firm", '["book", "desk", "fund", "firm"]'])
def test_levels_are_names_with_commas_or_a_list(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKRISK_LEVELS", text)
    assert Settings().levels == ("book", "desk", "fund", "firm")


@pytest.mark.parametrize("text", ["book,,firm", "book,desk", "[book", "fund,fund,firm"])
def test_levels_that_are_none_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKRISK_LEVELS", text)
    with pytest.raises(ValueError, match="levels"):
        Settings()
