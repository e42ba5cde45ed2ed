"""Settings that `pycni` reads from its environment, compared with cnitool."""

from pathlib import Path

import pytest

from cni.cli.settings import absolute, container_id, from_env
from cni.errors import CniError, Code


def test_the_container_id_is_cnitools() -> None:
    assert container_id("/run/netns/c1") == "cnitool-20b4ff582526573bbe7d"


@pytest.mark.parametrize("path", ["/run/netns/c1", "//run/netns/c1", "/run/./x/../netns//c1/"])
def test_the_path_is_cleaned_by_its_text(path: str) -> None:
    assert absolute(path) == "/run/netns/c1"


def test_a_relative_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("c1") == f"{tmp_path}/c1"
    with pytest.raises(CniError, match="the netns path is empty"):
        absolute("")


def test_defaults_hold_for_what_is_unset_or_empty() -> None:
    empty = {"CNI_PATH": "", "NETCONFPATH": "", "CAP_ARGS": "", "CNI_ARGS": "", "CNI_IFNAME": ""}
    for env in ({}, empty):
        settings = from_env(env)
        assert settings.path == ("/opt/cni/bin",)
        assert settings.conf_folder == Path("/etc/cni/net.d")
        assert settings.ifname == "eth0"
        assert settings.args is None
        assert settings.capability_args is None


def test_all_variables_are_read() -> None:
    env = {
        "CNI_PATH": "/a:/b",
        "NETCONFPATH": "/c",
        "CAP_ARGS": '{"mac": "02:00:00:00:00:01"}',
        "CNI_ARGS": "IgnoreUnknown=1;K=v",
        "CNI_IFNAME": "net1",
    }
    told = from_env(env).runtime_args("/run/netns/c1")
    assert from_env(env).path == ("/a", "/b")
    assert (told.container_id, told.netns, told.ifname) == (
        "cnitool-20b4ff582526573bbe7d",
        "/run/netns/c1",
        "net1",
    )
    assert told.args == (("IgnoreUnknown", "1"), ("K", "v"))
    assert told.capability_args == {"mac": "02:00:00:00:00:01"}
    assert from_env(env, "eth7").ifname == "eth7"


@pytest.mark.parametrize("text", ["A", "A=", "=b", "A=b;", "A=b=c"])
def test_odd_args_are_refused_with_the_pair(text: str) -> None:
    with pytest.raises(CniError, match=r"^invalid CNI_ARGS pair") as failure:
        from_env({"CNI_ARGS": text})
    assert failure.value.code == Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize("text", ["{", "[]", "7", "NaN", "\udcff"])
def test_odd_capability_args_are_refused(text: str) -> None:
    with pytest.raises(CniError, match="CAP_ARGS") as failure:
        from_env({"CAP_ARGS": text})
    assert failure.value.code == Code.INVALID_ENVIRONMENT
