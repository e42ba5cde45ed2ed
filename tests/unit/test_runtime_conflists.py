"""Which network a name means, and what is said about files that are none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError
from cni.runtime.conflists import Broken, find, list_files, load_all
from cni.runtime.network import Network

PLUGIN = {"type": "usual"}


def put(folder: Path, file: str, document: object) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def a_list(name: str, **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [PLUGIN], **more}


def test_lists_are_tried_before_single_files(tmp_path: Path) -> None:
    for file in ("10-a.conf", "20-b.conflist", "15-c.json", "05-d.conflist", "notes.txt", ".conf"):
        put(tmp_path, file, "{}")
    (tmp_path / "x.conflist").mkdir()
    names = [file.name for file in list_files(tmp_path)]
    assert names == ["05-d.conflist", "20-b.conflist", ".conf", "10-a.conf", "15-c.json"]


def test_the_first_file_of_a_name_counts(tmp_path: Path) -> None:
    put(tmp_path, "20.conflist", a_list("net", cniVersion="0.4.0"))
    put(tmp_path, "10.conf", {"name": "net", "type": "vendor"})
    put(tmp_path, "30.conflist", a_list("net"))
    assert find(tmp_path, "net").file == str(tmp_path / "20.conflist")


def test_a_single_file_becomes_a_list(tmp_path: Path) -> None:
    put(tmp_path, "10.conf", {"cniVersion": "0.3.1", "name": "net", "type": "vendor", "mtu": 1400})
    network = find(tmp_path, "net")
    assert (network.name, network.cni_version) == ("net", "0.3.1")
    assert [plugin.document["mtu"] for plugin in network.plugins] == [1400]
    assert json.loads(network.text) == {
        "name": "net",
        "cniVersion": "0.3.1",
        "plugins": [{"cniVersion": "0.3.1", "name": "net", "type": "vendor", "mtu": 1400}],
    }


@pytest.mark.parametrize(
    ("single", "several", "chosen"),
    [
        ("1.0.0", ["0.4.0", "1.1.0"], "1.1.0"),
        ("1.0.0", ["0.4.0"], "1.0.0"),
        ("1.0.0", ["9.9.0", "0.4.0"], "1.0.0"),
        ("9.9.0", ["0.4.0"], "0.4.0"),
        ("", ["0.3.1", "0.4.0"], "0.4.0"),
        ("9.9.0", ["8.0.0"], "9.9.0"),
    ],
)
def test_the_newest_known_version_is_taken(
    tmp_path: Path, single: str, several: list[str], chosen: str
) -> None:
    put(tmp_path, "10.conflist", a_list("net", cniVersion=single, cniVersions=several))
    assert find(tmp_path, "net").cni_version == chosen


def test_plugins_beside_the_list_are_appended(tmp_path: Path) -> None:
    put(tmp_path, "10.conflist", a_list("net", plugins=[{"type": "first"}]))
    put(tmp_path, "net/20.conf", {"type": "third"})
    put(tmp_path, "net/10.conf", {"type": "second"})
    put(tmp_path, "net/30.conflist", {"type": "no"})
    assert [each.type for each in find(tmp_path, "net").plugins] == ["first", "second", "third"]


def test_a_list_may_have_all_its_plugins_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "10.conflist", {"name": "net", "cniVersion": "1.1.0"})
    put(tmp_path, "net/10.conf", PLUGIN)
    assert [each.type for each in find(tmp_path, "net").plugins] == ["usual"]


@pytest.mark.parametrize("value", [True, "true", "TRUE"])
def test_inlined_plugins_alone_are_loaded_when_asked(tmp_path: Path, value: object) -> None:
    put(tmp_path, "10.conflist", a_list("net", loadOnlyInlinedPlugins=value))
    put(tmp_path, "net/10.conf", "broken")
    assert [each.type for each in find(tmp_path, "net").plugins] == ["usual"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{", "could not decode"),
        ("", "could not decode"),
        ("[]", "must be an object, got an array"),
        ({"plugins": [PLUGIN]}, "no network name"),
        ({"name": 7, "plugins": [PLUGIN]}, "no network name"),
        ({"name": "net"}, "no plugin configs found"),
        ({"name": "net", "plugins": []}, "no plugins in list"),
        ({"name": "net", "plugins": PLUGIN}, '"plugins" is {"type": "usual"}'),
        ({"name": "net", "plugins": ["usual"]}, 'plugins[0]: "usual" is no plugin'),
        ({"name": "net", "plugins": [PLUGIN, {}]}, "plugins[1]: missing 'type'"),
        (a_list("net", cniVersion=1), '"cniVersion" is 1'),
        (a_list("net", cniVersions="1.0.0"), '"cniVersions" is "1.0.0"'),
        (a_list("net", cniVersions=["one"]), 'could not parse cniVersion "one"'),
        (a_list("net", disableCheck="maybe"), '"disableCheck" is "maybe"'),
        (a_list("net", disableGC=1), '"disableGC" is 1'),
        ({"name": "net", "loadOnlyInlinedPlugins": True}, "no 'plugins' key"),
        (a_list("net", plugins=[{"type": "x", "capabilities": ["mac"]}]), '"capabilities" is ["mac"]'),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, document: object, told: str) -> None:
    put(tmp_path, "10-broken.conflist", document)
    put(tmp_path, "20.conflist", a_list("other"))
    with pytest.raises(CniError) as failure:
        find(tmp_path, "other")
    assert told in failure.value.msg
    assert "10-broken.conflist" in str(failure.value)
    broken, other = load_all(tmp_path)
    assert isinstance(broken, Broken)
    assert isinstance(other, Network)


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    put(tmp_path, "10.conflist", a_list("net"))
    with pytest.raises(CniError) as failure:
        find(tmp_path, "other")
    assert failure.value.msg == f'no net configuration with name "other" in {tmp_path}'
    assert failure.value.details == "configured are: net"


def test_a_missing_folder_has_no_networks(tmp_path: Path) -> None:
    with pytest.raises(CniError, match=f"no net configurations found in {tmp_path}/none"):
        find(tmp_path / "none", "net")
    assert load_all(tmp_path / "none") == []


def test_a_path_that_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "10.conflist")
    (tmp_path / "20.conflist").symlink_to(tmp_path / "nowhere")
    one, two = load_all(tmp_path)
    assert isinstance(one, Broken)
    assert isinstance(two, Broken)
    assert one.error.msg == f"error reading {tmp_path}/10.conflist: not a regular file"
    assert two.error.msg == f"error reading {tmp_path}/20.conflist: No such file or directory"


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "10.conflist", a_list("../elsewhere"))
    put(tmp_path.parent, "elsewhere/10.conf", "broken")
    assert find(tmp_path, "../elsewhere").plugins
