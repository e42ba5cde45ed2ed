"""Chains of real executables that record what they are given."""

import json
from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError, Code
from cni.request import Attachment, Verb
from cni.runtime.cache import Cache
from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from cni.runtime.network import Network, parse_network
from cni.testing.scripted import ScriptedPlugins

TOLD = RuntimeArgs("c1", "/run/netns/c1", "eth0")
FAIL = 'print(json.dumps({"code": 103, "msg": "port taken", "details": "by c9"})); sys.exit(1)'


@pytest.fixture
def plugins(tmp_path: Path) -> ScriptedPlugins:
    folder = tmp_path / "bin"
    folder.mkdir()
    return ScriptedPlugins(folder)


@pytest.fixture
def runtime(plugins: ScriptedPlugins, tmp_path: Path) -> Runtime:
    return Runtime([str(plugins.folder)], {"HOME": "/here"}, Cache(tmp_path / "cni"), timeout_s=20)


def network(*plugins: dict[str, Any], version: str = "1.1.0", **more: Any) -> Network:
    document = {"cniVersion": version, "name": "net", "plugins": list(plugins), **more}
    return parse_network(json.dumps(document).encode(), "net.conflist")


TWO = network({"type": "first", "address": "10.9.0.2/24"}, {"type": "second", "address": "10.9.0.3/24"})


def test_add_runs_in_order_and_hands_on_the_result(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    plugins.write("second")
    result = runtime.add(TWO, TOLD)
    assert plugins.order == ["ADD first", "ADD second"]
    assert "prevResult" not in plugins.calls[0]["stdin"]
    assert plugins.calls[1]["stdin"]["prevResult"]["ips"] == [{"address": "10.9.0.2/24"}]
    assert [ip["address"] for ip in result["ips"]] == ["10.9.0.2/24", "10.9.0.3/24"]
    assert plugins.calls[0]["stdin"]["name"] == "net"
    assert plugins.calls[0]["stdin"]["cniVersion"] == "1.1.0"


def test_a_plugin_that_hangs_in_many_calls_ends_soon(plugins: ScriptedPlugins, tmp_path: Path) -> None:
    hasty = Runtime([str(plugins.folder)], {"HOME": "/here"}, Cache(tmp_path / "cni"), timeout_s=0.5)
    plugins.write("first", "import time; time.sleep(60)")
    with pytest.raises(CniError, match=r"did not end within 1 s") as raised:
        hasty.ask_own(Verb.CALLS, TWO.plugins[0], b"{}", calls=32)
    assert raised.value.code == Code.TRY_AGAIN


def test_members_of_a_result_that_no_spec_knows_are_kept(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first", 'print(json.dumps({"ips": [], "example.com/more": [1]}))')
    plugins.write("second", 'print(json.dumps(conf["prevResult"]))')
    assert runtime.add(TWO, TOLD) == {"cniVersion": "1.1.0", "ips": [], "example.com/more": [1]}


def test_a_result_of_another_version_is_converted(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first", 'print(\'{"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.2/24"}}\')')
    plugins.write("second", 'print(json.dumps(conf["prevResult"]))')
    assert runtime.add(TWO, TOLD) == {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("", "no result: first printed nothing"),
        ("garbage", "could not decode result of first: Expecting value"),
        ("{}{}", "could not decode result of first: Extra data"),
        ("[]", "could not decode result of first: it must be an object, got an array"),
        ('{"cniVersion": "9.0.0"}', "could not parse result of first"),
        ('{"ips": [{"address": "x"}]}', "x"),
    ],
)
def test_a_success_without_a_proper_result_fails_the_add(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path, printed: str, told: str
) -> None:
    plugins.write("first", f"print({printed!r})")
    with pytest.raises(CniError) as failure:
        runtime.add(TWO, TOLD)
    assert failure.value.msg.startswith('plugin type="first" failed (add): ')
    assert told in failure.value.msg
    assert plugins.order == ["ADD first"]
    assert not (tmp_path / "cni").exists()


def test_a_result_that_is_null_is_an_empty_one(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first", 'print("null")')
    assert runtime.add(network({"type": "first"}), TOLD) == {"cniVersion": "1.1.0"}


def test_a_plugin_gets_the_runtimes_environment_and_its_own_variables(
    plugins: ScriptedPlugins, runtime: Runtime
) -> None:
    plugins.write("first")
    told = RuntimeArgs("c1", "/run/netns/c1", "eth0", args=(("K", "v"), ("IgnoreUnknown", "1")))
    runtime.add(network({"type": "first"}), told)
    env = plugins.calls[0]["env"]
    assert {key: value for key, value in env.items() if key.startswith("CNI_") or key == "HOME"} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_ARGS": "K=v;IgnoreUnknown=1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(plugins.folder),
        "HOME": "/here",
    }


def test_only_declared_capabilities_are_passed(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    plugins.write("second")
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    told = RuntimeArgs(
        "c1", "/n", "eth0", capability_args={"portMappings": ports, "mac": "02:00:00:00:00:01"}
    )
    chain = network(
        {"type": "first", "capabilities": {"mac": False}},
        {"type": "second", "capabilities": {"portMappings": True, "ipRanges": True}},
    )
    runtime.add(chain, told)
    assert "runtimeConfig" not in plugins.calls[0]["stdin"]
    assert plugins.calls[1]["stdin"]["runtimeConfig"] == {"portMappings": ports}


def test_another_spelling_of_a_given_key_is_dropped(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    runtime.add(network({"type": "first", "NAME": "other", "CNIVersion": "0.4.0"}), TOLD)
    assert sorted(plugins.calls[0]["stdin"]) == ["cniVersion", "name", "type"]


def test_a_failed_add_is_told_with_the_plugins_name_and_stops_there(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first")
    plugins.write("second", FAIL)
    plugins.write("third")
    chain = network({"type": "first"}, {"type": "second", "name": "ports"}, {"type": "third"})
    with pytest.raises(CniError) as failure:
        runtime.add(chain, TOLD)
    assert failure.value.msg == 'plugin type="second" name="ports" failed (add): port taken'
    assert (failure.value.code, failure.value.details) == (103, "by c9")
    assert plugins.order == ["ADD first", "ADD second"]
    assert not (tmp_path / "cni").exists()


def test_a_failed_add_is_undone_when_asked(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    plugins.write("second", f'if verb == "ADD":\n    {FAIL}')
    with pytest.raises(CniError, match="port taken"):
        runtime.add(TWO, TOLD, undo=True)
    assert plugins.order == ["ADD first", "ADD second", "DEL second", "DEL first"]


def test_check_goes_forward_and_del_backward_with_the_final_result(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first")
    plugins.write("second")
    result = runtime.add(TWO, TOLD)
    runtime.check(TWO, TOLD)
    runtime.delete(TWO, TOLD)
    assert plugins.order[2:] == ["CHECK first", "CHECK second", "DEL second", "DEL first"]
    assert [call["stdin"].get("prevResult") for call in plugins.calls[2:]] == [result] * 4
    assert list((tmp_path / "cni/results").iterdir()) == []


def test_del_takes_capability_args_from_the_cache(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    chain = network({"type": "first", "capabilities": {"mac": True}})
    added = RuntimeArgs("c1", "/n", "eth0", (("K", "v"),), {"mac": "02:00:00:00:00:01"})
    runtime.add(chain, added)
    runtime.delete(chain, TOLD)
    assert plugins.calls[1]["stdin"]["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}
    assert plugins.calls[1]["env"]["CNI_ARGS"] == "K=v"


def test_del_without_add_calls_the_plugins(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    runtime.delete(network({"type": "first"}), TOLD)
    assert "prevResult" not in plugins.calls[0]["stdin"]


def test_del_stops_at_an_error_and_can_be_repeated(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first")
    plugins.write("second")
    runtime.add(TWO, TOLD)
    plugins.write("second", FAIL)
    with pytest.raises(CniError, match=r'^plugin type="second" failed \(delete\): port taken'):
        runtime.delete(TWO, TOLD)
    assert plugins.order[2:] == ["DEL second"]
    assert (tmp_path / "cni/results/net-c1-eth0").exists()
    plugins.write("second")
    runtime.delete(TWO, TOLD)
    assert plugins.order[3:] == ["DEL second", "DEL first"]


def test_a_network_before_0_4_0_has_no_prev_result_on_del(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first")
    chain = network({"type": "first"}, version="0.3.1")
    runtime.add(chain, TOLD)
    runtime.delete(chain, TOLD)
    assert "prevResult" not in plugins.calls[1]["stdin"]
    assert list((tmp_path / "cni/results").iterdir()) == []


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"kind":"cniCacheV1"}', b'{"ips": 7}', b"\xff"])
def test_del_succeeds_with_a_broken_cache(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path, broken: bytes
) -> None:
    plugins.write("first")
    file = tmp_path / "cni/results/net-c1-eth0"
    file.parent.mkdir(parents=True)
    file.write_bytes(broken)
    runtime.delete(network({"type": "first"}), TOLD)
    assert plugins.order == ["DEL first"]
    assert "prevResult" not in plugins.calls[0]["stdin"]
    assert not file.exists()


def test_the_older_cache_format_is_a_bare_result(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first")
    file = tmp_path / "cni/results/net-c1-eth0"
    file.parent.mkdir(parents=True)
    file.write_text('{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.9.0.2/24"}],"dns":{}}')
    runtime.delete(network({"type": "first"}), TOLD)
    expected = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}
    assert plugins.calls[0]["stdin"]["prevResult"] == expected


def test_check_needs_0_4_0(runtime: Runtime) -> None:
    with pytest.raises(CniError) as failure:
        runtime.check(network({"type": "first"}, version="0.3.1"), TOLD)
    assert failure.value.msg == 'configuration version "0.3.1" does not support the CHECK command'


def test_check_of_what_was_never_added_says_so(runtime: Runtime) -> None:
    with pytest.raises(CniError, match='network "net" has no attachment c1 eth0 to check') as failure:
        runtime.check(network({"type": "first"}), TOLD)
    assert failure.value.code == Code.UNKNOWN_CONTAINER


@pytest.mark.parametrize("value", [True, "True"])
def test_a_disabled_check_succeeds(runtime: Runtime, value: object) -> None:
    runtime.check(network({"type": "missing"}, disableCheck=value), TOLD)


def test_gc_deletes_what_is_cached_and_not_valid(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    chain = network({"type": "first"})
    for container in ("c1", "c2"):
        runtime.add(chain, RuntimeArgs(container, f"/run/netns/{container}", "eth0"))
    runtime.gc(chain, {Attachment("c1", "eth0")})
    assert plugins.order[2:] == ["DEL first", "GC first"]
    deleted, collected = plugins.calls[2:]
    assert (deleted["env"]["CNI_CONTAINERID"], deleted["env"]["CNI_NETNS"]) == ("c2", "/run/netns/c2")
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    assert collected["stdin"]["cni.dev/valid-attachments"] == valid
    assert collected["stdin"]["cni.dev/attachments"] == valid
    assert {collected["env"][key] for key in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")} == {""}


def test_gc_without_a_valid_set_leaves_the_key_out(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    runtime.gc(network({"type": "first"}), None)
    assert "cni.dev/valid-attachments" not in plugins.calls[0]["stdin"]


def test_gc_goes_on_after_errors(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first", FAIL)
    plugins.write("second")
    with pytest.raises(CniError, match=r"^failed to GC plugin first: port taken"):
        runtime.gc(TWO, set())
    assert plugins.order == ["GC first", "GC second"]


def test_gc_before_1_1_0_asks_by_a_command_of_this_suite(
    plugins: ScriptedPlugins, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.write("first")
    chain = network({"type": "first"}, version="1.0.0")
    runtime.add(chain, TOLD)
    runtime.gc(chain, set())
    assert plugins.order == ["ADD first", "DEL first", "PYCNI_GC first"]
    assert plugins.calls[-1]["stdin"]["cniVersion"] == "1.0.0"
    assert "plugin first is of another suite: GC came with cniVersion 1.1.0" in capsys.readouterr().err


def test_a_disabled_gc_does_nothing(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    runtime.gc(network({"type": "first"}, disableGC="true"), set())
    assert plugins.order == []


def test_status_gives_the_first_error_with_its_code(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first", 'print(json.dumps({"code": 50, "msg": "pool is full"})); sys.exit(1)')
    plugins.write("second")
    with pytest.raises(CniError, match="pool is full") as failure:
        runtime.status(TWO)
    assert failure.value.code == Code.NOT_AVAILABLE
    assert plugins.order == ["STATUS first", "STATUS second"]


def test_versions_come_from_the_plugin(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first")
    assert runtime.versions("first") == ("0.4.0", "1.0.0", "1.1.0")
    plugins.write("old", 'print(json.dumps({"code": 4, "msg": "unknown CNI_COMMAND: VERSION"})); sys.exit(1)')
    assert runtime.versions("old") == ("0.1.0",)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (RuntimeArgs("-c1", "/n", "eth0"), "invalid characters in containerID"),
        (RuntimeArgs("c1", "/n", ""), "interface name is empty"),
        (RuntimeArgs("c1", "/n", "much-too-long-name"), "interface name is too long"),
        (RuntimeArgs("c" * 300, "/n", "eth0"), "no cache file can be called"),
    ],
)
def test_wrong_names_are_refused_before_any_plugin_runs(
    plugins: ScriptedPlugins, runtime: Runtime, told: RuntimeArgs, message: str
) -> None:
    plugins.write("first")
    with pytest.raises(CniError, match=message):
        runtime.add(network({"type": "first"}), told)
    assert plugins.order == []


def test_a_missing_plugin_is_named_with_the_path(runtime: Runtime, plugins: ScriptedPlugins) -> None:
    with pytest.raises(CniError) as failure:
        runtime.add(network({"type": "nowhere"}), TOLD)
    expected = (
        f'plugin type="nowhere" failed (add): failed to find plugin "nowhere" in path [{plugins.folder}]'
    )
    assert failure.value.msg == expected
