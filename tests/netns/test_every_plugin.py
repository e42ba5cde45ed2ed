"""Requirements of CNI, tested on every plugin: all verbs, all versions, and all that may be missing.

A plugin's `tests/data/example.json` has its own keys of a configuration that ADD accepts on an empty host.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from cni.convert import parse_result, show_result
from cni.versions import SUPPORTED, at_least
from tests.support.subjects import NEEDING_SERVER, NONE_VALID, PLUGINS, add_link, configuration, prepare

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

pytestmark = pytest.mark.modes("cold", "warm", "single")
every = pytest.mark.parametrize("name", PLUGINS)
# Tests in the folders of the others start what these need.
every_that_adds = pytest.mark.parametrize("name", [each for each in PLUGINS if each not in NEEDING_SERVER])

NO_CONFIGURATIONS = [
    ("", 6),
    ("{", 6),
    ("[]", 6),
    ('{"cniVersion": "1.0.0"}', 7),
    ('{"cniVersion": "8.0.0", "name": "n"}', 1),
]


class Subject:
    """A plugin with its example, to be called in one version of the spec."""

    def __init__(self, host: Host, name: str, version: str = "1.1.0") -> None:
        prepare(host, name)
        self.host = host
        self.name = name
        self.version = version
        self.conf = configuration(name, cniVersion=version)
        if "prevResult" in self.conf:
            previous = parse_result(self.conf["prevResult"], "")
            self.conf["prevResult"] = show_result(previous, version)

    def sandbox(self, name: str) -> Sandbox:
        """Make a container's namespace, with the link that a chained plugin needs in it."""
        sandbox = self.host.sandbox(name)
        if PLUGINS[self.name].needs_link:
            add_link(sandbox, configuration(self.name)["prevResult"])
        return sandbox

    def __call__(self, verb: str, **more: Any) -> Answer:
        conf = self.conf | more.pop("conf", {})
        return self.host.plugin(self.name, verb, conf, **more)


@every_that_adds
@pytest.mark.started
@pytest.mark.quick
def test_one_life_in_the_newest_version(host: Host, name: str) -> None:
    """Its cold calls start the executable."""
    live(Subject(host, name, SUPPORTED[-1]))


@every_that_adds
@pytest.mark.full(mode="cold")
def test_one_life_in_every_earlier_version(host: Host, name: str) -> None:
    for version in SUPPORTED[:-1]:
        live(Subject(host, name, version))


def live(subject: Subject) -> None:
    """CNI spec 1.1.0, section 2: ADD prints a result, the other verbs nothing; DEL may be called again."""
    host, name, version = subject.host, subject.name, subject.version
    sandbox = subject.sandbox("c1")
    result = subject("ADD", netns=sandbox).must()
    assert result["cniVersion"] == version
    assert show_result(parse_result(result, ""), version) == result
    if at_least(version, "0.4.0"):
        assert subject("CHECK", netns=sandbox, conf={"prevResult": result}).must() == {}, version
        subject.conf["prevResult"] = result
    else:
        # Before 0.4.0 a runtime sends no prevResult with DEL.
        subject.conf.pop("prevResult", None)
    before_del = host.snapshot() if PLUGINS[name].keeps_state else None
    for _ in range(2):
        answer = subject("DEL", netns=sandbox)
        assert (answer.status, answer.stdout) == (0, ""), version
    assert before_del is None or host.snapshot() != before_del, version
    sandbox.delete()


@every
def test_status_and_gc_are_quiet(host: Host, name: str) -> None:
    subject = Subject(host, name)
    for verb in ("STATUS", "GC"):
        answer = subject(verb, conf=NONE_VALID, container_id="", ifname="")
        assert (answer.status, answer.stdout) == (0, "")


@every
def test_del_of_what_never_was_succeeds_and_leaves_nothing(host: Host, name: str) -> None:
    subject = Subject(host, name)
    before = host.snapshot(exact=True)
    sandbox = subject.sandbox("c1")
    host.run(["touch", "/run/netns/file"])
    for netns in (sandbox.path, "", "/run/netns/none", "/run/netns/file", "/proc/self/ns/net"):
        assert subject("DEL", netns=netns).must() == {}
        without = {
            key: value for key, value in subject.conf.items() if key not in {"prevResult", "runtimeConfig"}
        }
        assert host.plugin(name, "DEL", without, netns=netns).must() == {}
    host.run(["rm", "/run/netns/file"])
    sandbox.delete()
    later = [line for line in before.differences(host.snapshot(exact=True)) if "/run/pycni" not in line]
    assert later == []


@every_that_adds
def test_del_without_the_namespace_removes_all_that_is_on_the_host(host: Host, name: str) -> None:
    subject = Subject(host, name)
    warm = subject.sandbox("warm")
    subject("ADD", netns=warm, container_id="warm").must()
    subject("DEL", netns=warm, container_id="warm").must()
    before = host.snapshot()
    sandbox = subject.sandbox("c1")
    subject("ADD", netns=sandbox).must()
    # The kernel may still be removing the links, so that DEL finds them.
    sandbox.delete(settled=False)
    for netns in ("", sandbox.path):
        subject("DEL", netns=netns).must()
    prepare(host, name)
    assert before.differences(host.snapshot()) == []


@every
def test_the_hosts_own_namespace_is_refused_and_nothing_changed(host: Host, name: str) -> None:
    subject = Subject(host, name)
    before = host.snapshot(exact=True)
    answer = subject("ADD", netns="/proc/self/ns/net")
    assert (answer.code, answer.msg) == (8, "plugin's netns and netns from CNI_NETNS should not be the same")
    assert before.differences(host.snapshot(exact=True)) == []


@every
def test_what_is_no_configuration_gets_one_error_object(still_host: Host, name: str) -> None:
    for verb, (stdin, code) in product(["ADD", "DEL", "CHECK"], NO_CONFIGURATIONS):
        answer = still_host.plugin(name, verb, stdin, netns="/run/netns/none")
        assert (answer.status, answer.code) == (1, code), (verb, stdin)
        assert answer.msg, (verb, stdin)
        assert answer.stderr == "", (verb, stdin)


@every
def test_version_and_about(still_host: Host, name: str) -> None:
    listed = still_host.plugin(name, "VERSION", "not looked at").must()
    assert listed == {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)}
    about = still_host.plugin(name, "", "", env={"CNI_COMMAND": ""})
    assert (about.status, about.stdout) == (0, "")
    assert about.stderr.startswith(f"CNI {name} plugin v")
