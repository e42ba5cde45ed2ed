"""The result cache, compared with what libcni writes."""

import base64
import json
from pathlib import Path

import pytest

from cni.errors import CniError
from cni.request import Attachment
from cni.runtime.cache import Cache, Entry, parse_entry, show_entry

ENTRY = Entry(
    "net",
    "c1",
    "eth0",
    b'{"name":"net"}',
    "/run/netns/c1",
    (("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web")),
    {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
    {"ips": [{"address": "10.9.0.2/24"}], "cniVersion": "1.0.0"},
)

# As libcni's encoder writes it: members of the structure in the order of its fields, keys of maps sorted.
FROM_LIBCNI = (
    b'{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoibmV0In0=","ifName":"eth0",'
    b'"networkName":"net","netns":"/run/netns/c1","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAME","web"]],'
    b'"capabilityArgs":{"portMappings":[{"containerPort":80,"hostPort":8080}]},'
    b'"result":{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24"}]}}'
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cni")


def test_a_file_has_the_bytes_that_libcni_writes() -> None:
    assert show_entry(ENTRY) == FROM_LIBCNI


def test_empty_members_are_left_out() -> None:
    shown = show_entry(Entry("net", "c1", "eth0", b"{}"))
    assert list(json.loads(shown)) == ["kind", "containerId", "config", "ifName", "networkName"]


def test_markup_characters_are_escaped_as_go_does() -> None:
    shown = show_entry(Entry("net", "c1", "eth0", args=(("A", "<&>\u2028"),)))
    assert b'["A","\\u003c\\u0026\\u003e\\u2028"]' in shown
    assert parse_entry(json.loads(shown), Path("x")).args == (("A", "<&>\u2028"),)


def test_an_entry_is_read_as_it_was_written(cache: Cache) -> None:
    cache.write(ENTRY)
    assert cache.read("net", ENTRY.attachment) == ENTRY
    assert cache.list_entries() == [ENTRY]


def test_only_the_owner_may_read_it(cache: Cache) -> None:
    cache.write(ENTRY)
    file = cache.path("net", ENTRY.attachment)
    assert file.name == "net-c1-eth0"
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_nothing_cached_is_none_and_removing_it_is_fine(cache: Cache) -> None:
    assert cache.read("net", Attachment("c1", "eth0")) is None
    assert cache.list_entries() == []
    cache.remove("net", Attachment("c1", "eth0"))


def test_two_attachments_with_one_file_name_are_not_mixed_up(cache: Cache) -> None:
    cache.write(Entry("a-b", "c", "eth0"))
    assert cache.read("a", Attachment("b-c", "eth0")) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config": "not base64!"}, '"config" is not valid base64'),
        ({"cniArgs": [["a"]]}, '"cniArgs" must be an array of pairs of strings'),
        ({"capabilityArgs": []}, '"capabilityArgs" is []'),
        ({"netns": 7}, '"netns" is 7'),
        ({"containerId": None}, '"containerId" is missing'),
    ],
)
def test_a_broken_file_is_named_with_its_member(cache: Cache, change: dict[str, object], told: str) -> None:
    cache.write(ENTRY)
    file = cache.path("net", ENTRY.attachment)
    file.write_text(json.dumps(json.loads(FROM_LIBCNI) | change))
    with pytest.raises(CniError) as failure:
        cache.read("net", ENTRY.attachment)
    assert str(file) in failure.value.msg
    assert told in failure.value.msg
    assert cache.list_entries() == []


def test_the_namespace_of_an_old_entry_is_that_of_its_result() -> None:
    interfaces = [{"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/c1"}]
    assert Entry("net", "c1", "eth0", result={"interfaces": interfaces}).sandbox == "/run/netns/c1"
    assert Entry("net", "c1", "eth0", netns="/n", result={"interfaces": interfaces}).sandbox == "/n"
    assert Entry("net", "c1", "eth0", result={"interfaces": 7}).sandbox == ""


def test_the_configuration_is_kept_byte_for_byte(cache: Cache) -> None:
    text = b'{ "name":\t"net",\n "plugins": [] }\n'
    cache.write(Entry("net", "c1", "eth0", text))
    stored = json.loads(cache.path("net", Attachment("c1", "eth0")).read_bytes())
    assert base64.b64decode(stored["config"]) == text
