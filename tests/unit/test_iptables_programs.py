"""Which variant a program is of: what it says, asked once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.firewall.iptables import execute

if TYPE_CHECKING:
    from pathlib import Path


def program(folder: Path, name: str, says: str, status: int = 0) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho asked >> {folder}/log\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "status", "variant"),
    [
        ("iptables v1.8.9 (nf_tables)", 0, "nf_tables"),
        ("iptables v1.8.9 (legacy)", 0, "legacy"),
        ("ip6tables v1.4.21", 0, "legacy"),
        ("iptables v1.8.11 (nf_tables): a note", 0, "nf_tables"),
        ("who knows", 0, ""),
        ("iptables v1.8.9 (legacy)", 1, ""),
    ],
)
def test_a_program_reports_its_variant(tmp_path: Path, says: str, status: int, variant: str) -> None:
    program(tmp_path, "iptables", says, status)
    restore = program(tmp_path, "iptables-restore", "no such option", 2)
    assert execute.variant_of(str(restore)) == variant


def test_the_restore_program_is_asked_if_it_is_the_only_one(tmp_path: Path) -> None:
    restore = program(tmp_path, "iptables-restore", "iptables-restore v1.8.9 (legacy)")
    assert execute.variant_of(str(restore)) == "legacy"


def test_a_program_is_asked_once_until_it_is_replaced(tmp_path: Path) -> None:
    restore = program(tmp_path, "iptables-restore", "iptables v1.8.9 (legacy)")
    assert {execute.variant_of(str(restore)) for _ in range(3)} == {"legacy"}
    assert (tmp_path / "log").read_text().count("asked") == 1
    new = program(tmp_path, "new", "iptables v1.8.9 (nf_tables)")
    os.utime(new, (1, 1))
    new.replace(restore)
    assert execute.variant_of(str(restore)) == "nf_tables"


def test_a_program_that_is_not_there_has_no_variant(tmp_path: Path) -> None:
    assert execute.variant_of(str(tmp_path / "iptables-restore")) == ""
